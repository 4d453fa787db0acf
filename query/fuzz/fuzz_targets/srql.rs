//! SRQL over the data of the tests: answered, or refused as its asker's mistake.
#![no_main]

mod asked;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    asked::answered(text, asked::run(asked::ENGINE.query(&asked::ACTOR, text, None, Some(100))));
});
