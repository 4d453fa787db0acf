//! Secrets that stand in the ledger are sealed (AES-256-GCM) under a key that is not in it: a file of the data directory, for
//! its owner alone. Whoever has the ledger, its snapshots, the lake or Postgres, and not that file, has no secret.
//!
//! A sealed text is bound to what it is a secret of: moved to another resource it does not open. The nonce follows from key,
//! what it is bound to and the text, so that the same secret of the same resource is sealed to the same text: said again, it is no
//! change. All that this tells is whether a secret is what it was. Keys are rotated by adding one
//! in front of the file; what was sealed under an older one opens as long as that is there.

use std::fmt;
use std::io;
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use radarflow_proto::disk::Disk;
use thiserror::Error;

use crate::ledger::LedgerError;

/// What a sealed text begins with.
const SEALED: &str = "sealed:";

/// Why a sealed text is not opened.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SealError {
    /// Its key is not in the file.
    #[error("it is sealed under key {0}, which is not in the file of keys")]
    UnknownKey(String),
    /// It was changed, or belongs to something else.
    #[error("it does not open: it was changed, or is a secret of something else")]
    Broken,
    /// There is no key at all.
    #[error("there is no key to seal with")]
    NoKey,
}

/// The keys, newest first.
#[derive(Default)]
pub struct Keyring(Vec<(String, [u8; 32])>);

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(id, _)| id)).finish()
    }
}

/// What a secret is bound to.
pub fn context(tenant: &str, resource: &str, id: &str, field: &str) -> String {
    [tenant, resource, id, field].join("\u{1f}")
}

impl Keyring {
    /// The keys that a file keeps, a line each: an id and 64 hex digits. One is made where there is no file.
    ///
    /// # Errors
    /// The file holds something else, or the disk refuses. Then nothing is made.
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<Self, LedgerError> {
        let failed = |error| LedgerError::io(path)(error);
        match disk.read_all(path) {
            Ok(bytes) => {
                let other = || io::Error::new(io::ErrorKind::InvalidData, "it holds no keys of this program");
                let text = String::from_utf8(bytes.to_vec()).map_err(|_| failed(other()))?;
                let key = |line: &str| {
                    let (id, hex) = line.split_once(' ')?;
                    let key = <[u8; 32]>::try_from(hex::decode(hex.trim()).ok()?).ok()?;
                    Some((id.to_owned(), key))
                };
                let lines = text.lines().filter(|line| !line.trim().is_empty());
                let keys: Option<Vec<_>> = lines.map(key).collect();
                keys.filter(|keys| !keys.is_empty()).map(Keyring).ok_or_else(|| failed(other()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let ring = Keyring(vec![(hex::encode(rand::random::<[u8; 4]>()), rand::random())]);
                let lines: String = ring.0.iter().map(|(id, key)| format!("{id} {}\n", hex::encode(key))).collect();
                disk.keep_secret(path, lines.as_bytes()).map_err(failed)?;
                Ok(ring)
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Seals a text under the newest key.
    ///
    /// # Errors
    /// There is none.
    pub fn seal(&self, context: &str, text: &str) -> Result<String, SealError> {
        let (id, key) = self.0.first().ok_or(SealError::NoKey)?;
        let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
        mac.update(b"nonce");
        mac.update(&(context.len() as u64).to_le_bytes());
        mac.update(context.as_bytes());
        mac.update(text.as_bytes());
        let nonce: [u8; NONCE_LEN] = mac.sign().as_ref()[..NONCE_LEN].try_into().map_err(|_| SealError::Broken)?;
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).map_err(|_| SealError::NoKey)?);
        let mut sealed = text.as_bytes().to_vec();
        let of = Nonce::assume_unique_for_key(nonce);
        key.seal_in_place_append_tag(of, Aad::from(context.as_bytes()), &mut sealed).map_err(|_| SealError::Broken)?;
        let whole = [&nonce[..], &sealed].concat();
        Ok(format!("{SEALED}{id}:{}", STANDARD_NO_PAD.encode(whole)))
    }

    /// Whether a text is sealed.
    pub fn is_sealed(text: &str) -> bool {
        text.starts_with(SEALED)
    }

    /// Opens a sealed text.
    ///
    /// # Errors
    /// Its key is unknown, or it is not what was sealed for this.
    pub fn unseal(&self, context: &str, text: &str) -> Result<String, SealError> {
        let (id, sealed) = text.strip_prefix(SEALED).and_then(|rest| rest.split_once(':')).ok_or(SealError::Broken)?;
        let (_, key) =
            self.0.iter().find(|(known, _)| known == id).ok_or_else(|| SealError::UnknownKey(id.to_owned()))?;
        let mut bytes = STANDARD_NO_PAD.decode(sealed).map_err(|_| SealError::Broken)?;
        if bytes.len() < NONCE_LEN {
            return Err(SealError::Broken);
        }
        let mut sealed = bytes.split_off(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(&bytes).map_err(|_| SealError::Broken)?;
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).map_err(|_| SealError::Broken)?);
        let text =
            key.open_in_place(nonce, Aad::from(context.as_bytes()), &mut sealed).map_err(|_| SealError::Broken)?;
        String::from_utf8(text.to_vec()).map_err(|_| SealError::Broken)
    }
}

#[cfg(test)]
mod tests {
    use crate::disk;

    use super::*;

    #[test]
    fn what_is_sealed_opens_for_what_it_was_sealed_for_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sealing.keys");
        let ring = Keyring::open(&*disk::os(), &path).unwrap();
        let of = context("t", "receivers", "ops", "target");
        let sealed = ring.seal(&of, "https://hush").unwrap();
        assert!(Keyring::is_sealed(&sealed) && !sealed.contains("hush"));
        assert_eq!(ring.seal(&of, "https://hush").unwrap(), sealed);
        assert_ne!(ring.seal(&of, "https://hush2").unwrap()[..30], sealed[..30]);
        let again = Keyring::open(&*disk::os(), &path).unwrap();
        assert_eq!(again.unseal(&of, &sealed).as_deref(), Ok("https://hush"));
        assert_eq!(again.unseal(&context("u", "receivers", "ops", "target"), &sealed), Err(SealError::Broken));
        let mut changed = sealed.clone();
        changed.pop();
        assert_eq!(again.unseal(&of, &changed), Err(SealError::Broken));
        assert_eq!(again.unseal(&of, "https://hush"), Err(SealError::Broken));

        // A newer key in front: what was sealed before opens, and what is sealed now is under the newer.
        let known = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("new {}\n{known}", "ab".repeat(32))).unwrap();
        let rotated = Keyring::open(&*disk::os(), &path).unwrap();
        assert_eq!(rotated.unseal(&of, &sealed).as_deref(), Ok("https://hush"));
        let newer = rotated.seal(&of, "x").unwrap();
        assert!(newer.starts_with("sealed:new:"));
        assert_eq!(again.unseal(&of, &newer), Err(SealError::UnknownKey("new".into())));
        for other in ["", "new", "new xyz", "new abcd"] {
            std::fs::write(&path, other).unwrap();
            assert!(Keyring::open(&*disk::os(), &path).is_err(), "{other}");
        }
        assert_eq!(Keyring::default().seal("", ""), Err(SealError::NoKey));
        assert!(!format!("{rotated:?}").contains("abab"));
    }
}
