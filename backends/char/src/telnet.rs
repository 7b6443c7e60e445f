//! The little of telnet (RFC 854, 857, 858, 856) that puts a client into character mode.

const IAC: u8 = 255;
const DONT: u8 = 254;
const WILL: u8 = 251;
const DO: u8 = 253;
const SB: u8 = 250;
const SE: u8 = 240;
const BREAK: u8 = 243;
const IP: u8 = 244;
const BINARY: u8 = 0;
const ECHO: u8 = 1;
const SUPPRESS_GO_AHEAD: u8 = 3;

/// Takes the protocol out of the input.
#[derive(Default, Debug)]
pub(crate) struct Filter {
    state: State,
}

#[derive(Clone, Copy, Default, Debug)]
enum State {
    #[default]
    Data,
    Command,
    /// One more byte, the option's number.
    Option,
    Sub,
    SubCommand,
}

impl Filter {
    /// We echo, send no go-aheads, and both sides send eight bits.
    pub(crate) const GREETING: [u8; 12] = [
        IAC,
        WILL,
        ECHO,
        IAC,
        WILL,
        SUPPRESS_GO_AHEAD,
        IAC,
        WILL,
        BINARY,
        IAC,
        DO,
        BINARY,
    ];

    /// Leaves the data in `buffer` and returns how many breaks were in it.
    pub(crate) fn strip(&mut self, buffer: &mut Vec<u8>) -> usize {
        let mut breaks = 0usize;
        buffer.retain(|byte| {
            let (next, keep) = match (self.state, *byte) {
                (State::Data, IAC) => (State::Command, false),
                (State::Data, _) => (State::Data, true),
                (State::Command, IAC) => (State::Data, true),
                (State::Command, SB) => (State::Sub, false),
                (State::Command, WILL..=DONT) => (State::Option, false),
                (State::Command, command) => {
                    breaks = breaks.saturating_add(usize::from(matches!(command, BREAK | IP)));
                    (State::Data, false)
                }
                (State::Option, _) => (State::Data, false),
                (State::Sub, IAC) => (State::SubCommand, false),
                (State::SubCommand, SE) => (State::Data, false),
                (State::Sub | State::SubCommand, _) => (State::Sub, false),
            };
            self.state = next;
            keep
        });
        breaks
    }

    /// Output with its 255s doubled.
    pub(crate) fn escape(data: &[u8]) -> impl Iterator<Item = u8> + '_ {
        data.iter()
            .flat_map(|byte| std::iter::repeat_n(*byte, if *byte == IAC { 2 } else { 1 }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negotiation_disappears_even_when_split_and_data_stays() {
        let mut filter = Filter::default();
        let mut one = vec![b'a', IAC];
        let mut two = vec![
            DO, ECHO, b'b', IAC, IAC, IAC, SB, 1, 2, IAC, SE, b'c', IAC, BREAK,
        ];
        assert_eq!(filter.strip(&mut one), 0);
        assert_eq!(filter.strip(&mut two), 1);
        assert_eq!((one, two), (vec![b'a'], vec![b'b', IAC, b'c']));
    }
}
