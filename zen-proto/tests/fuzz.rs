//! A fuzz test of the property in `properties.rs`: cuts change no answer. `cargo xtask fuzz` runs it for a long time;
//! `cargo test` runs it briefly, and on the committed corpus.

mod model;

use model::{assert_well_formed, converse, model};
use zen_proto::APHORISMS;

#[test]
fn conversation() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let (cuts, said) = bytes.split_at(bytes.len().min(8));
        let cuts: Vec<usize> = cuts.iter().map(|cut| usize::from(*cut)).cycle().take(64).collect();
        let taken = cuts.first().copied().unwrap_or(1);
        let input: Vec<u8> = said.iter().flat_map(|byte| spoken(*byte)).collect();
        let expected = model(&input);
        assert_eq!(converse(&input, &cuts, taken), expected);
        assert_well_formed(&expected.0);
    });
}

/// Expands one byte of the fuzzer's input. Random bytes hardly ever form a known question, or one that is too long, so
/// some byte values stand for such a question.
fn spoken(byte: u8) -> Vec<u8> {
    match byte {
        0xe0..=0xef => APHORISMS[usize::from(byte % 3)].question.into(),
        0xf0..=0xff => vec![b'x'; 245 + usize::from(byte - 0xf0)],
        _ => vec![byte],
    }
}
