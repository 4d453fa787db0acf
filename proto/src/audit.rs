//! The chain of the audit: each row of a tenant bears the hash of the row before it, so a row that was changed, added or taken
//! away afterwards is seen by whoever computes the hashes again (`radarflow audit verify`). The first row of a day bears the
//! last of the day before; so a day whose rows are kept elsewhere is checked by itself, against the next.
//!
//! The hash is SHA-256 over the text `radarflow audit 1` and then, each with its length in eight bytes before it (big-endian), the
//! hash before (hexadecimal, nothing in the first row), tenant, sequence, epoch, time in microseconds since 1970 (numbers in
//! decimal), actor, action, subject, the reason (with a `=` before it, or nothing), detail.

use sha2::{Digest, Sha256};

use crate::rows::Audit;

/// What the hash begins with.
const FIRST: &[u8] = b"radarflow audit 1";

/// The hash of a row, whose `sequence` and `previous` are set.
pub fn hash(row: &Audit) -> String {
    let mut digest = Sha256::new_with_prefix(FIRST);
    let mut add = |text: &str| {
        digest.update((text.len() as u64).to_be_bytes());
        digest.update(text);
    };
    add(row.previous.as_deref().unwrap_or_default());
    add(&row.tenant_id);
    add(&row.sequence.unwrap_or_default().to_string());
    add(&row.epoch.to_string());
    add(&row.time.0.to_string());
    add(&row.actor);
    add(&row.action);
    add(&row.subject);
    add(&row.reason.as_ref().map_or_else(String::new, |reason| format!("={reason}")));
    add(&row.detail);
    hex::encode(digest.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::{RowId, Time};

    fn row() -> Audit {
        Audit {
            tenant_id: "t".into(),
            partition: "default".into(),
            row_id: RowId::new(1, 2, 3),
            epoch: 7,
            sequence: Some(2),
            time: Time(1_700_000_000_000_000),
            actor: "ann".into(),
            action: "users:create".into(),
            subject: "bob".into(),
            reason: None,
            detail: "{}".into(),
            previous: Some("aa".into()),
            hash: None,
        }
    }

    #[test]
    fn the_hash_is_what_is_written_down() {
        let mut bytes = FIRST.to_vec();
        for text in ["aa", "t", "2", "7", "1700000000000000", "ann", "users:create", "bob", "", "{}"] {
            bytes.extend((text.len() as u64).to_be_bytes());
            bytes.extend(text.as_bytes());
        }
        assert_eq!(hash(&row()), hex::encode(Sha256::digest(&bytes)));
    }

    #[test]
    fn whatever_changes_changes_the_hash() {
        type Change = fn(&mut Audit);
        let changes: &[Change] = &[
            |r| r.tenant_id.push('u'),
            |r| r.epoch += 1,
            |r| r.sequence = Some(3),
            |r| r.time = Time(1),
            |r| r.actor.push('x'),
            |r| r.action.push('x'),
            |r| r.subject.push('x'),
            |r| r.reason = Some(String::new()),
            |r| r.detail.push(' '),
            |r| r.previous = None,
            // Text that moves from one field to the next is another text.
            |r| (r.actor, r.action) = ("annu".into(), "sers:create".into()),
        ];
        for change in changes {
            let mut changed = row();
            change(&mut changed);
            assert_ne!(hash(&changed), hash(&row()), "{changed:?}");
        }
    }
}
