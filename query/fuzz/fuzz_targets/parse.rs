//! Text that may be SRQL: it is parsed, or what is wrong with it is somewhere in it.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(error) = radarflow_query::srql::check(text) {
        assert!(error.start <= error.end && error.end <= text.len(), "{error:?} is nowhere in {text:?}");
        let _ = error.position(text);
    }
});
