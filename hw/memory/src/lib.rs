//! Guest RAM, memory map and port map.
