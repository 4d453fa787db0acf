//! Text as it is typed, with the cursor anywhere: what is offered replaces a part of it.
#![no_main]

mod asked;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|typed: (usize, &str)| {
    let (offset, text) = typed;
    let offset = if text.is_empty() { offset } else { offset % (text.len() + 1) };
    let offered = asked::run(asked::ENGINE.complete(&asked::ACTOR, text, offset));
    let (replaces, _) = offered.unwrap_or_else(|error| panic!("{text:?} at {offset}: {error:?}"));
    assert!(replaces.start <= replaces.end && replaces.end <= text.len(), "{text:?} at {offset}: {replaces:?}");
});
