use crate::parse::parse;
use crate::{Condition, Field, Form, Test, compile, describe};

const FORM: Form = Form {
    name: "ldr_lit",
    mask: 0x3f00_0000,
    bits: 0x1800_0000,
    len: 32,
    width: 32,
    fields: &[
        Field {
            name: "opc",
            shift: 30,
            width: 2,
            signed: false,
            value: 0,
        },
        Field {
            name: "imm",
            shift: 5,
            width: 19,
            signed: true,
            value: 0,
        },
    ],
    conditions: &[Condition {
        field: 0,
        test: Test::Unequal,
        value: 3,
    }],
};

#[test]
fn a_line_becomes_mask_bits_and_fields() {
    let table = parse("ldr_lit opc:2 011 V=0 000 imm:s19 rt:5 if opc != 3 # PC-relative").unwrap();
    let line = &table.lines[0];
    assert_eq!((line.mask, line.bits), (FORM.mask, FORM.bits));
    assert_eq!((line.fields[0].shift, line.fields[2].shift), (30, 5));
    assert_eq!(line.conditions, [(0, Test::Unequal, 3)]);
}

#[test]
fn a_wrong_line_is_named() {
    let text = |t: &str| parse(t).unwrap_err().to_string();
    assert_eq!(text("\nadd 0101"), "line 2: 4 bits of 32");
    assert_eq!(text("add rd:33"), "line 1: '33' is no width");
    assert_eq!(text("add a a"), "line 1: field 'a' occurs twice");
    assert_eq!(
        text("add 0000000000000000 rd:16 if rn == 1"),
        "line 1: no field 'rn'"
    );
}

#[test]
fn random_words_fit_and_are_described() {
    let mut seed = 1u64;
    for _ in 0..1000 {
        let word = FORM.random(|| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1);
            seed >> 20
        });
        let word = word.unwrap();
        assert!(FORM.fits(word) && word >> 30 != 3 && word >> 32 == 0);
    }
    let text = describe(&[FORM], 0x58ff_ffe0).unwrap();
    assert_eq!(text, "ldr_lit opc=0x1 imm=-1");
    assert_eq!(describe(&[FORM], 0xd8ff_ffe0), None);
}

#[test]
fn short_forms_are_at_the_top() {
    let source =
        compile("width 48\nlr 00011000 r1:4 r2:4\nbrasl 11000000 r1:4 0101 i2:s32").unwrap();
    assert!(source.contains("pub(crate) fn decode(w: u64)"));
    let table = parse("width 48\nlr 00011000 r1:4 r2:4").unwrap();
    assert_eq!(
        (table.lines[0].len, table.lines[0].bits),
        (16, 0x1800_0000_0000)
    );
}
