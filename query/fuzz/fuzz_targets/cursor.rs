//! Cursors that we did not give: each is refused, none is believed.
#![no_main]

mod asked;

use libfuzzer_sys::fuzz_target;
use radarflow_query::error::QueryError;

fuzz_target!(|text: &str| {
    let answer = asked::run(asked::ENGINE.query(&asked::ACTOR, "in:devices limit:1", Some(text), None));
    assert!(matches!(answer, Err(QueryError::Cursor(_))), "{text:?}: {answer:?}");
});
