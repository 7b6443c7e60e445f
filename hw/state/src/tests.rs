use super::*;
use proptest::prelude::*;

fn sample() -> Section {
    Section::new("pl031", 1)
        .with(1, 7u32)
        .with(2, true)
        .with(3, vec![1u8, 2, 3])
        .with(4, "text".to_string())
        .with(5, [1u64, 2].into_iter().collect::<Value>())
        .with(6, Section::new("inner", 2).with(1, u64::MAX))
}

#[test]
fn a_section_survives_its_byte_form() {
    let bytes = codec::encode(&sample());
    assert_eq!(codec::decode(&bytes), Ok(sample()));
}

#[test]
fn a_field_is_read_only_as_what_it_is() {
    let s = sample();
    assert_eq!(s.u32(1), Ok(7));
    assert_eq!(s.bool(2), Ok(true));
    assert_eq!(s.array::<3>(3), Ok([1, 2, 3]));
    assert!(s.array::<4>(3).is_err());
    assert!(s.u64(3).is_err());
    assert_eq!(s.u64_array::<2>(5), Ok([1, 2]));
    assert!(s.section(6).unwrap().u8(1).is_err());
    assert_eq!(
        s.u64(9),
        Err(StateError::Missing {
            name: "pl031".into(),
            tag: 9
        })
    );
    assert_eq!(s.u64_or(9, 4), Ok(4));
}

#[test]
fn another_name_or_a_newer_version_is_refused() {
    assert!(sample().expect("pl031", 1).is_ok());
    assert!(sample().expect("pl011", 1).is_err());
    assert!(sample().expect("pl031", 0).is_err());
}

proptest! {
    #[test]
    fn mutated_bytes_end_in_a_value_or_an_error(at in 0usize..100, to: u8, cut in 0usize..100) {
        let mut bytes = codec::encode(&sample());
        let at = at % bytes.len();
        bytes[at] = to;
        bytes.truncate(bytes.len().saturating_sub(cut));
        let _ = codec::decode(&bytes);
    }

    #[test]
    fn random_bytes_end_in_a_value_or_an_error(bytes: Vec<u8>) {
        let _ = codec::decode(&bytes);
    }
}
