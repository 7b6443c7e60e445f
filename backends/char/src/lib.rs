//! Character streams: stdio, file, pipe, pty, socket, ringbuf, mux.
