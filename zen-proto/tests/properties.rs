//! Property test: however the input is cut, the answers and the ending are those of the model.

mod model;

use model::{assert_well_formed, converse, model};
use proptest::collection::vec;
use proptest::prelude::*;

/// Bytes that look like questions often enough to reach every state.
fn input() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec![
            "Beautiful is better than?", "Explicit is better than?", "Simple is better than?",
            "?", " ", "\r\n", "\t", "\u{b}", "Simple is", "better", ".",
        ]).prop_map(|text| text.as_bytes().to_vec()),
        2 => vec(any::<u8>(), 0..40),
        1 => (250usize..260, any::<bool>()).prop_map(|(length, whole)| {
            let mut long = vec![b'x'; length];
            if whole { long.push(b'?') }
            long
        }),
    ];
    vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn cuts_change_nothing(input in input(), cuts in vec(0usize..50, 0..200), taken in 1usize..100) {
        let expected = model(&input);
        prop_assert_eq!(&converse(&input, &cuts, taken), &expected);
        prop_assert_eq!(&converse(&input, &[], usize::MAX), &expected);
        prop_assert_eq!(&converse(&input, &vec![1; input.len()], taken), &expected);
        assert_well_formed(&expected.0);
    }
}

#[test]
fn every_inner_cut_of_three_questions() {
    let input = b"Beautiful is better than?Explicit is better than? \r\nSimple is better than?";
    for first in 1..input.len() {
        for second in 1..input.len() - first {
            let (answers, ending) = converse(input, &[first, second], 3);
            assert_eq!(answers, b"ugly.implicit.complex.", "cut at {first} and {second} bytes later");
            assert_eq!(ending, zen_proto::Ending::Finished);
        }
    }
}
