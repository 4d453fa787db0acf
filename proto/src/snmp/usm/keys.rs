//! Keys, digests and ciphers of USM: RFC 3414 (MD5, SHA-1, DES), RFC 3826 (AES-128), RFC 7860 (SHA-2), and what everybody does for
//! longer AES keys, in both ways of making a key long enough (draft-blumenthal-aes-usm-04, and draft-reeder-snmpv3-usm-3desede-00
//! as Cisco's devices have it).
//!
//! ```text
//! password ──► key of the user ──► key of the user at an engine ──► as long as the cipher takes
//!     a mebibyte is hashed   a hundred octets are                a hash more, or a mebibyte
//! ```

use std::fmt;

use aes::{Aes128, Aes192, Aes256};
use cbc::cipher::block_padding::NoPadding;
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use des::Des;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Digest;

/// Octets of a salt.
pub(super) const SALT: usize = 8;
/// Octets that a password is repeated to (RFC 3414 appendix A.2).
const REPEATED: usize = 1 << 20;
/// A password has this many at least (RFC 3414 section 11.2), so that it is no PIN.
pub const MIN_PASSWORD: usize = 8;

/// How messages are authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Auth {
    Md5,
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

/// Does something with the hash function of an algorithm.
macro_rules! with {
    ($auth:expr, $hash:ident => $done:expr) => {
        match $auth {
            Auth::Md5 => {
                type $hash = md5::Md5;
                $done
            }
            Auth::Sha1 => {
                type $hash = sha1::Sha1;
                $done
            }
            Auth::Sha224 => {
                type $hash = sha2::Sha224;
                $done
            }
            Auth::Sha256 => {
                type $hash = sha2::Sha256;
                $done
            }
            Auth::Sha384 => {
                type $hash = sha2::Sha384;
                $done
            }
            Auth::Sha512 => {
                type $hash = sha2::Sha512;
                $done
            }
        }
    };
}

impl Auth {
    /// By name.
    pub const NAMES: [(&'static str, Auth); 6] = [
        ("md5", Auth::Md5),
        ("sha1", Auth::Sha1),
        ("sha224", Auth::Sha224),
        ("sha256", Auth::Sha256),
        ("sha384", Auth::Sha384),
        ("sha512", Auth::Sha512),
    ];

    /// Octets of a digest as it is sent.
    pub(super) fn digest(self) -> usize {
        match self {
            Auth::Md5 | Auth::Sha1 => 12,
            Auth::Sha224 => 16,
            Auth::Sha256 => 24,
            Auth::Sha384 => 32,
            Auth::Sha512 => 48,
        }
    }

    fn hash(self, parts: &[&[u8]]) -> Vec<u8> {
        with!(self, Hash => {
            let mut hash = Hash::new();
            parts.iter().for_each(|part| hash.update(part));
            hash.finalize().to_vec()
        })
    }

    /// The key of a password, at no engine in particular.
    pub fn key(self, password: &[u8]) -> MasterKey {
        with!(self, Hash => {
            let mut hash = Hash::new();
            // As many copies as fill a block of some size are hashed at once.
            let copies = password.repeat((4096 / password.len().max(1)).max(1));
            let mut left = REPEATED;
            while left > 0 && !copies.is_empty() {
                let taken = left.min(copies.len());
                hash.update(&copies[..taken]);
                left -= taken;
            }
            MasterKey(hash.finalize().to_vec())
        })
    }

    /// The digest of a message whose parts these are, as long as it is sent.
    pub(super) fn sign(self, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        with!(self, Hash => {
            let Ok(mut mac) = <Hmac<Hash> as KeyInit>::new_from_slice(key) else { return Vec::new() };
            parts.iter().for_each(|part| mac.update(part));
            mac.finalize().into_bytes()[..self.digest()].to_vec()
        })
    }

    /// Whether a digest is the message's; how much of it is right takes no time to tell.
    pub(super) fn is_signed(self, key: &[u8], parts: &[&[u8]], digest: &[u8]) -> bool {
        digest.len() == self.digest()
            && with!(self, Hash => {
                let Ok(mut mac) = <Hmac<Hash> as KeyInit>::new_from_slice(key) else { return false };
                parts.iter().for_each(|part| mac.update(part));
                mac.verify_truncated_left(digest).is_ok()
            })
    }
}

/// How messages are encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Privacy {
    Des,
    Aes128,
    /// With Blumenthal's longer keys.
    Aes192,
    Aes256,
    /// With Reeder's.
    Aes192c,
    Aes256c,
}

impl Privacy {
    /// By name.
    pub const NAMES: [(&'static str, Privacy); 6] = [
        ("des", Privacy::Des),
        ("aes128", Privacy::Aes128),
        ("aes192", Privacy::Aes192),
        ("aes256", Privacy::Aes256),
        ("aes192c", Privacy::Aes192c),
        ("aes256c", Privacy::Aes256c),
    ];

    /// Octets of a key; of DES the second half goes into the initial vector.
    fn key(self) -> usize {
        match self {
            Privacy::Des | Privacy::Aes128 => 16,
            Privacy::Aes192 | Privacy::Aes192c => 24,
            Privacy::Aes256 | Privacy::Aes256c => 32,
        }
    }

    /// The key at an engine, as long as it must be.
    pub(super) fn localized(self, auth: Auth, master: &MasterKey, engine: &[u8]) -> Vec<u8> {
        let mut key = master.localized(auth, engine);
        let mut last = key.clone();
        while key.len() < self.key() {
            last = match self {
                Privacy::Aes192c | Privacy::Aes256c => auth.key(&last).localized(auth, engine),
                _ => auth.hash(&[&key]),
            };
            key.extend_from_slice(&last);
        }
        key.truncate(self.key());
        key
    }

    /// The initial vector of AES: when, and the salt.
    fn vector(boots: u32, time: u32, salt: [u8; SALT]) -> [u8; 16] {
        let mut vector = [0; 16];
        vector[..4].copy_from_slice(&boots.to_be_bytes());
        vector[4..8].copy_from_slice(&time.to_be_bytes());
        vector[8..].copy_from_slice(&salt);
        vector
    }

    /// Decrypts data; none where it cannot be what it says.
    pub(super) fn decrypt(self, key: &[u8], (boots, time): (u32, u32), salt: &[u8], data: &[u8]) -> Option<Vec<u8>> {
        let salt = <[u8; SALT]>::try_from(salt).ok()?;
        let mut data = data.to_vec();
        let vector = Privacy::vector(boots, time, salt);
        match self {
            Privacy::Des => {
                let (key, vector) = des(key, salt)?;
                cbc::Decryptor::<Des>::new_from_slices(key, &vector)
                    .ok()?
                    .decrypt_padded::<NoPadding>(&mut data)
                    .ok()?;
            }
            Privacy::Aes128 => cfb_mode::Decryptor::<Aes128>::new_from_slices(key, &vector).ok()?.decrypt(&mut data),
            Privacy::Aes192 | Privacy::Aes192c => {
                cfb_mode::Decryptor::<Aes192>::new_from_slices(key, &vector).ok()?.decrypt(&mut data);
            }
            Privacy::Aes256 | Privacy::Aes256c => {
                cfb_mode::Decryptor::<Aes256>::new_from_slices(key, &vector).ok()?.decrypt(&mut data);
            }
        }
        Some(data)
    }

    /// Encrypts data; of DES it is padded.
    pub(super) fn encrypt(
        self,
        key: &[u8],
        (boots, time): (u32, u32),
        salt: [u8; SALT],
        mut data: Vec<u8>,
    ) -> Option<Vec<u8>> {
        let vector = Privacy::vector(boots, time, salt);
        match self {
            Privacy::Des => {
                let (key, vector) = des(key, salt)?;
                data.resize(data.len().next_multiple_of(8), 0);
                let length = data.len();
                let cipher = cbc::Encryptor::<Des>::new_from_slices(key, &vector).ok()?;
                cipher.encrypt_padded::<NoPadding>(&mut data, length).ok()?;
            }
            Privacy::Aes128 => cfb_mode::Encryptor::<Aes128>::new_from_slices(key, &vector).ok()?.encrypt(&mut data),
            Privacy::Aes192 | Privacy::Aes192c => {
                cfb_mode::Encryptor::<Aes192>::new_from_slices(key, &vector).ok()?.encrypt(&mut data);
            }
            Privacy::Aes256 | Privacy::Aes256c => {
                cfb_mode::Encryptor::<Aes256>::new_from_slices(key, &vector).ok()?.encrypt(&mut data);
            }
        }
        Some(data)
    }
}

/// DES's own key, and its initial vector (RFC 3414 section 8.1.1.1).
fn des(key: &[u8], salt: [u8; SALT]) -> Option<(&[u8], [u8; SALT])> {
    let (key, before) = key.split_at_checked(SALT)?;
    let mut vector = <[u8; SALT]>::try_from(before).ok()?;
    vector.iter_mut().zip(salt).for_each(|(byte, salt)| *byte ^= salt);
    Some((key, vector))
}

/// What a password is made into: the same at every engine.
#[derive(Clone, PartialEq, Eq)]
pub struct MasterKey(Vec<u8>);

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(…)")
    }
}

impl MasterKey {
    /// The key at an engine.
    pub(super) fn localized(&self, auth: Auth, engine: &[u8]) -> Vec<u8> {
        auth.hash(&[&self.0, engine, &self.0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENGINE: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

    #[test]
    fn passwords_become_keys_as_rfc_3414_appendix_a_3_has_it() {
        let of = |auth: Auth| {
            let key = auth.key(b"maplesyrup");
            (hex::encode(&key.0), hex::encode(key.localized(auth, &ENGINE)))
        };
        let (key, localized) = of(Auth::Md5);
        assert_eq!((&*key, &*localized), ("9faf3283884e92834ebc9847d8edd963", "526f5eed9fcce26f8964c2930787d82b"));
        let (key, localized) = of(Auth::Sha1);
        assert_eq!(key, "9fb5cc0381497b3793528939ff788d5d79145211");
        assert_eq!(localized, "6695febc9288e36282235fc7151f128497b38f3f");
    }

    #[test]
    fn keys_grow_as_both_drafts_have_it() {
        let of = |privacy: Privacy, auth: Auth| hex::encode(privacy.localized(auth, &auth.key(b"maplesyrup"), &ENGINE));
        // draft-reeder-snmpv3-usm-3desede-00, appendix B.
        let reeder = "526f5eed9fcce26f8964c2930787d82b79eff44a90650ee0a3a40abfac5acc12";
        assert_eq!(of(Privacy::Aes256c, Auth::Md5), reeder);
        let reeder = "6695febc9288e36282235fc7151f128497b38f3f9b8b6d78936ba6e7d19dfd9c";
        assert_eq!(of(Privacy::Aes256c, Auth::Sha1), reeder);
        // Blumenthal: what there is of the key, and its hash.
        let key = hex::decode("6695febc9288e36282235fc7151f128497b38f3f").unwrap();
        let longer = [&key[..], &Auth::Sha1.hash(&[&key])].concat();
        assert_eq!(of(Privacy::Aes256, Auth::Sha1), hex::encode(&longer[..32]));
        assert_eq!(of(Privacy::Aes192, Auth::Sha1), hex::encode(&longer[..24]));
        // Where the hash is long enough nothing is added.
        assert_eq!(of(Privacy::Aes256, Auth::Sha512), of(Privacy::Aes256c, Auth::Sha512));
    }

    #[test]
    fn what_is_encrypted_decrypts_and_nothing_else_does() {
        for (_, privacy) in Privacy::NAMES {
            let key = privacy.localized(Auth::Sha256, &Auth::Sha256.key(b"maplesyrup"), &ENGINE);
            let data = b"a PDU with its context".to_vec();
            let hidden = privacy.encrypt(&key, (7, 77), [9; 8], data.clone()).unwrap();
            assert!(!hidden.windows(4).any(|part| data.windows(4).any(|of| of == part)));
            let open = |at, salt: &[u8]| privacy.decrypt(&key, at, salt, &hidden);
            assert!(open((7, 77), &[9; 8]).unwrap().starts_with(&data), "{privacy:?}");
            assert!(!open((7, 77), &[8; 8]).unwrap().starts_with(&data), "{privacy:?}");
            assert_eq!(open((7, 77), &[9; 7]), None);
            assert_eq!(privacy.decrypt(&key[..3], (7, 77), &[9; 8], &hidden), None);
        }
        assert_eq!(Privacy::Des.decrypt(&[1; 16], (0, 0), &[0; 8], &[0; 9]), None);
    }
}
