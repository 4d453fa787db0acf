//! Passwords: known by hashes alone (argon2id, RFC 9106), each with its salt and its parameters beside it.

use std::sync::LazyLock;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;

/// Memory of one hash, KiB; OWASP's least for two passes.
const MEMORY_KIB: u32 = 19 * 1024;
/// Passes.
const PASSES: u32 = 2;
/// Shortest password, characters.
const SHORTEST: usize = 10;
/// Longest, bytes.
const LONGEST: usize = 1000;
/// Passwords of ten and more characters that are guessed first.
const COMMON: &str = include_str!("common-passwords.txt");

/// Hashes that are computed at once.
pub const AT_ONCE: usize = 2;
/// Memory that one takes, bytes.
pub const HASH_BYTES: usize = MEMORY_KIB as usize * 1024;
/// Hashes that are computed at once: they bind memory and a core each.
static VERIFYING: Semaphore = Semaphore::const_new(AT_ONCE);

/// How passwords are hashed now; what was hashed otherwise says so itself.
fn argon2() -> Argon2<'static> {
    let params = Params::new(MEMORY_KIB, PASSES, 1, None).unwrap_or_default();
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// A hash that no password has, for names that nobody has: to say no takes as long.
static NOBODY: LazyLock<String> =
    LazyLock::new(|| hashed_password(&hex::encode(rand::random::<[u8; 16]>())).unwrap_or_default());

/// What is kept of a password, as PHC text.
pub fn hashed_password(password: &str) -> Option<String> {
    let salt: [u8; 16] = rand::random();
    let hash: PasswordHash = argon2().hash_password_with_salt(password.as_bytes(), &salt).ok()?;
    Some(hash.to_string())
}

/// Whether a password is that of a hash; without one it takes as long to say no.
pub(crate) async fn verify(password: String, hash: Option<String>) -> bool {
    let Ok(_one) = VERIFYING.acquire().await else { return false };
    let verified = tokio::task::spawn_blocking(move || {
        let known = hash.is_some();
        let nobody = NOBODY.clone();
        let hash = hash.unwrap_or(nobody);
        let Ok(hash) = PasswordHash::new(&hash) else { return false };
        let is = password.len() <= LONGEST && argon2().verify_password(password.as_bytes(), &hash).is_ok();
        known && is
    });
    verified.await.unwrap_or_default()
}

/// What is kept of a password, computed where it keeps nobody from being answered.
pub(crate) async fn hashed(password: String) -> Option<String> {
    let _one = VERIFYING.acquire().await.ok()?;
    tokio::task::spawn_blocking(move || hashed_password(&password)).await.ok().flatten()
}

/// What is wrong with a password, if anything.
pub fn weak(password: &str) -> Option<String> {
    let lower = password.to_lowercase();
    let mut chars = lower.chars();
    let first = chars.next();
    if password.chars().count() < SHORTEST || password.len() > LONGEST {
        return Some(format!("a password has {SHORTEST} characters to {LONGEST} bytes"));
    }
    if chars.all(|c| Some(c) == first) || COMMON.lines().any(|common| common == lower) {
        return Some("this password is among the first that are guessed".to_owned());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn passwords_are_known_by_their_hashes() {
        let hash = hashed_password("correct horse battery").unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_ne!(hashed_password("correct horse battery").unwrap(), hash, "each has a salt of its own");
        assert!(verify("correct horse battery".into(), Some(hash.clone())).await);
        assert!(!verify("correct horse batterz".into(), Some(hash.clone())).await);
        assert!(!verify("correct horse battery".into(), None).await);
        assert!(!verify("x".into(), Some("not a hash".into())).await);
        // A hash of older parameters is verified by its own.
        let salt = [7; 16];
        let older = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(64, 1, 1, None).unwrap());
        let older: PasswordHash = older.hash_password_with_salt(b"hunter", &salt).unwrap();
        assert!(verify("hunter".into(), Some(older.to_string())).await);
    }

    #[test]
    fn passwords_that_are_guessed_first_are_refused() {
        for password in ["short", "aaaaaaaaaaaa", "Password123", "1234567890", &"x".repeat(2000)] {
            assert!(weak(password).is_some(), "{password}");
        }
        assert_eq!(weak("correct horse battery"), None);
        assert!(COMMON.lines().all(|common| common.chars().count() >= SHORTEST && common.to_lowercase() == common));
    }
}
