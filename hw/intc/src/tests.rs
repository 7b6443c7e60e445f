use super::*;
use hw_state::codec;
use proptest::prelude::*;

#[test]
fn power_on_states_survive_their_saved_form() {
    let lapic = LapicState::new(3, false);
    assert_eq!(LapicState::restore(&lapic.save()), Ok(lapic));
    let pic = I8259State::default();
    assert_eq!(I8259State::restore(&pic.save()), Ok(pic));
    let ioapic = IoApicState::default();
    assert_eq!(IoApicState::restore(&ioapic.save()), Ok(ioapic));
    let mut pit = I8254State::default();
    pit.channels[1].write_low = Some(0);
    pit.channels[2].latched_status = Some(7);
    pit.channels[0].loaded_at = Some(99);
    assert_eq!(I8254State::restore(&pit.save()), Ok(pit));
}

#[test]
fn the_divider_follows_its_odd_encoding() {
    let shifts: Vec<u32> = [0, 1, 2, 3, 8, 9, 10, 11].map(divide_shift).to_vec();
    assert_eq!(shifts, [1, 2, 3, 4, 5, 6, 7, 0]);
}

#[test]
fn messages_have_a_memory_form() {
    let (address, data) = ApicMessage::msi(0x12, true, 1, 0x31, true);
    assert_eq!((address, data), (0xfee1_2004, 0xc131));
    let message = ApicMessage::from_msi(address, data).unwrap();
    assert_eq!(message.destination, Destination::Logical(0x12));
    assert_eq!(message.mode, DeliveryMode::LowestPriority);
    assert!(message.level);
    assert_eq!(ApicMessage::from_msi(0xfed0_0000, 0), None);
    let everyone = ApicMessage::from_msi(0xfeef_f000, 0x40).unwrap();
    assert_eq!(everyone.destination, Destination::Physical(u32::MAX));
}

#[test]
fn a_periodic_count_wraps_and_a_single_one_stops() {
    let mut s = LapicState::new(0, true);
    s.initial_count = 100;
    s.divide = 0b1011;
    s.started_ns = 1000;
    s.fires_ns = Some(1100);
    assert_eq!(s.current_count(1030), 70);
    assert_eq!(s.current_count(1150), 0);
    s.lvt[lvt_index::TIMER] = lvt::PERIODIC;
    assert_eq!(s.current_count(1150), 50);
}

proptest! {
    #[test]
    fn the_kernels_page_carries_all_registers(
        isr: [u32; 8], irr: [u32; 8], tpr: u8, icr: u64, count in 1u32.., passed in 0u64..5000,
    ) {
        let mut s = LapicState::new(5, false);
        (s.isr, s.irr, s.tpr, s.icr, s.initial_count) = (isr, irr, tpr, icr, count);
        s.divide = 3;
        s.started_ns = 10_000;
        let now = 10_000 + passed * 16;
        s.fires_ns = Some(10_000);
        let left = s.current_count(now);
        s.fires_ns = (left > 0).then(|| now + u64::from(left) * 16);
        let mut back = LapicState::new(5, false);
        back.set_page(&s.to_page(now), now);
        if left > 0 {
            prop_assert_eq!(back, s);
        } else {
            prop_assert_eq!(back.current_count(now), 0);
        }
    }

    #[test]
    fn mutated_sections_end_in_a_state_or_an_error(at in 0usize..1000, to: u8) {
        for section in [
            LapicState::new(1, true).save(),
            I8259State::default().save(),
            IoApicState::default().save(),
            I8254State::default().save(),
        ] {
            let mut bytes = codec::encode(&section);
            let at = at % bytes.len();
            bytes[at] = to;
            if let Ok(section) = codec::decode(&bytes) {
                let _ = LapicState::restore(&section);
                let _ = I8259State::restore(&section);
                let _ = IoApicState::restore(&section);
                let _ = I8254State::restore(&section);
            }
        }
    }
}
