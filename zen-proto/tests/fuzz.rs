//! The same property for a fuzzer: `cargo xtask fuzz` runs it for long, `cargo test` for a moment and on
//! the committed corpus. The first bytes of an input say how it is cut.

mod model;

use model::{assert_well_formed, converse, model};

#[test]
fn conversation() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let (cuts, input) = bytes.split_at(bytes.len().min(8));
        let cuts: Vec<usize> = cuts.iter().map(|cut| usize::from(*cut)).cycle().take(64).collect();
        let taken = cuts.first().copied().unwrap_or(1);
        let expected = model(input);
        assert_eq!(converse(input, &cuts, taken), expected);
        assert_well_formed(&expected.0);
    });
}
