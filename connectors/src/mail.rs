//! Sends mail over SMTP (RFC 5321), one message a connection, within a time. The server is named as lettre has it: `smtps://` for TLS
//! from the first byte, `smtp://…?tls=required` for STARTTLS; without TLS only on this host.

use std::time::Duration;

use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use thiserror::Error;
use tokio::sync::Semaphore;
use url::Url;

use crate::secret;

/// Longest wait for one answer of the server.
const ANSWER: Duration = Duration::from_secs(10);
/// Longest time for a message, all of it.
const WHOLE: Duration = Duration::from_secs(60);
/// Messages that are on their way at once; others wait, and are given up where they wait too long.
const AT_ONCE: usize = 8;

/// Why mail cannot be sent.
#[derive(Debug, Error)]
pub enum MailError {
    /// The server is not named as it should be.
    #[error("mail.smtp: {0}")]
    Server(String),
    /// It is an address of nobody.
    #[error("{0} is no address of mail: {1}")]
    Address(String, lettre::address::AddressError),
    /// The message cannot be written.
    #[error("the message: {0}")]
    Message(#[from] lettre::error::Error),
    /// The server did not take it.
    #[error("the mail server: {0}")]
    Sending(#[from] lettre::transport::smtp::Error),
    /// It took too long.
    #[error("the mail server did not take it in time")]
    Late,
}

/// A way to send mail.
pub struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    places: Semaphore,
}

impl Mailer {
    /// Through a server (or what names it: `env:`, `file:`), from an address.
    ///
    /// # Errors
    /// [`MailError`] where either is not as it should be. The URL, which may hold a password, is not told.
    pub fn new(smtp: &str, from: &str) -> Result<Self, MailError> {
        let server = |detail: &str| MailError::Server(detail.to_owned());
        let smtp = secret::resolve(smtp).map_err(|error| MailError::Server(error.to_string()))?;
        let url = Url::parse(&smtp)
            .map_err(|_| server("it is smtps://[user:password@]host[:port] or smtp://…?tls=required"))?;
        let encrypted = match url.scheme() {
            "smtps" => true,
            "smtp" => url.query_pairs().any(|(name, value)| name == "tls" && value == "required"),
            _ => return Err(server("it begins with smtps:// or smtp://")),
        };
        if !encrypted && !matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")) {
            return Err(server("passwords and links would be readable on the way: use smtps://, or add ?tls=required"));
        }
        let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(&smtp);
        let transport = transport.map_err(|_| server("the URL cannot be read"))?.timeout(Some(ANSWER)).build();
        let from = from.parse().map_err(|error| MailError::Address(from.to_owned(), error))?;
        Ok(Mailer { transport, from, places: Semaphore::new(AT_ONCE) })
    }

    /// Whether the server answers, and lets us in.
    ///
    /// # Errors
    /// [`MailError`] where it does not.
    pub async fn check(&self) -> Result<(), MailError> {
        let tested = tokio::time::timeout(ANSWER, self.transport.test_connection()).await;
        match tested.map_err(|_| MailError::Late)?.map_err(MailError::from)? {
            true => Ok(()),
            false => Err(MailError::Server("it does not answer as a mail server does".to_owned())),
        }
    }

    /// Sends a text.
    ///
    /// # Errors
    /// [`MailError`] where it is not taken.
    pub async fn send(&self, to: &str, subject: &str, text: String) -> Result<(), MailError> {
        let to: Mailbox = to.parse().map_err(|error| MailError::Address(to.to_owned(), error))?;
        let message = Message::builder().from(self.from.clone()).to(to).subject(subject);
        let message = message.header(ContentType::TEXT_PLAIN).body(text)?;
        let sent = async {
            let _place = self.places.acquire().await.map_err(|_| MailError::Late)?;
            self.transport.send(message).await.map_err(MailError::from)
        };
        tokio::time::timeout(WHOLE, sent).await.map_err(|_| MailError::Late)?.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_named_with_tls_or_is_on_this_host() {
        for smtp in ["smtps://a:b@mail.example", "smtp://mail.example:587?tls=required", "smtp://127.0.0.1:2525"] {
            assert!(Mailer::new(smtp, "Radarflow <radarflow@example.net>").is_ok(), "{smtp}");
        }
        for smtp in ["smtp://a:hush@mail.example", "smtp://mail.example?tls=opportunistic", "http://a:hush@b", "a:hush"]
        {
            let error = Mailer::new(smtp, "radarflow@example.net").err().unwrap().to_string();
            assert!(!error.contains("hush"), "{error}");
        }
        assert!(Mailer::new("smtp://localhost", "nobody").is_err());
    }
}
