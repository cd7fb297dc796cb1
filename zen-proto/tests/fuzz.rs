//! The same property for a fuzzer: `cargo xtask fuzz` runs it for long, `cargo test` for a moment and on
//! the committed corpus.

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

/// What a byte of a fuzzer's input stands for. Random bytes are few, and hardly ever a known question or one
/// that is too long: some stand for these.
fn spoken(byte: u8) -> Vec<u8> {
    match byte {
        0xe0..=0xef => APHORISMS[usize::from(byte % 3)].question.into(),
        0xf0..=0xff => vec![b'x'; 245 + usize::from(byte - 0xf0)],
        _ => vec![byte],
    }
}
