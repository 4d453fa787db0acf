//! Handshakes with a gateway, in memory; and connections that last as long as something lets them in.

use radarflow_proto::resource::Shown;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, SanType, SerialNumber};
use rustls::client::Resumption;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

use super::making::{RENEWED, lasting};
use super::*;
use crate::disk;

fn change(resource: &Arc<Resource>) -> ResourceChange {
    ResourceChange { before: None, after: Some(resource.clone()) }
}

fn resource(tenant: &str, table: Table, id: &str, fields: Value, secrets: &[(&str, &str)]) -> Arc<Resource> {
    let fields = serde_json::from_value(fields).unwrap();
    let secrets = secrets.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    Arc::new(Resource {
        resource: table.name().to_owned(),
        tenant: tenant.to_owned(),
        id: id.to_owned(),
        fields: Shown(fields),
        secrets,
        owner: String::new(),
        created_us: 1,
        created_by: "test".to_owned(),
        updated_us: 1,
        updated_by: "test".to_owned(),
        epoch: 1,
    })
}

/// Tenants `t` and `u`, each with an authority.
fn enrolled() -> Arc<Enrolled> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let keys = Keyring::open(&*disk::os(), &dir.path().join("sealing.keys")).unwrap();
    let enrolled = Arc::new(Enrolled::new(Arc::new(keys), &[7; 32]));
    for tenant in ["t", "u"] {
        assert!(!enrolled.has(tenant) && enrolled.certify(tenant, "a", "s", None).is_err());
        enrolled.learn(&[change(&authority(&enrolled, tenant, "agents", 1))]);
        assert!(enrolled.has(tenant));
    }
    enrolled
}

/// An authority that was made at an instant.
fn authority(enrolled: &Enrolled, tenant: &str, id: &str, created_us: i64) -> Arc<Resource> {
    let made = enrolled.make(tenant, id).unwrap();
    assert!(!made.sealed_key.contains("PRIVATE"));
    let fields = json!({"certificate": made.certificate, "not_after": made.not_after_us});
    let key = [("key", made.sealed_key.as_str())];
    let made = resource(tenant, Table::CertificateAuthority, id, fields, &key);
    Arc::new(Resource { created_us, ..Resource::clone(&made) })
}

fn package(tenant: &str, fingerprint: &str, revoked: Option<i64>) -> Arc<Resource> {
    let fields = json!({"agent_id": "a", "site": "s", "fingerprint": fingerprint, "revoked_at": revoked});
    resource(tenant, Table::EdgePackage, "p", fields, &[])
}

fn gate(enrolled: &Arc<Enrolled>, tenant: &str) -> ServerConfig {
    Gate::new(enrolled.clone(), tenant.to_owned(), vec!["gateway.test".to_owned(), "127.0.0.1".to_owned()]).config()
}

/// How an agent reaches a gateway.
fn client(made: &Certified) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(made.authorities.as_bytes()).unwrap()).unwrap();
    let certificate = CertificateDer::from_pem_slice(made.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(made.key.as_ref().unwrap().as_bytes()).unwrap();
    let builder = ClientConfig::builder().with_root_certificates(roots);
    let mut client = builder.with_client_auth_cert(vec![certificate], key).unwrap();
    client.resumption = Resumption::in_memory_sessions(8);
    client
}

/// Whether both agree; and whether they did it without showing certificates again.
fn shake(server: &ServerConfig, client: &Arc<ClientConfig>, name: &str) -> Result<bool, rustls::Error> {
    let name = name.to_owned().try_into().unwrap();
    let mut client = ClientConnection::new(client.clone(), name)?;
    let mut server = ServerConnection::new(Arc::new(server.clone()))?;
    for _ in 0..10 {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut &wire[..]).unwrap();
        server.process_new_packets()?;
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut &wire[..]).unwrap();
        client.process_new_packets()?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(server.handshake_kind() == Some(rustls::HandshakeKind::Resumed))
}

#[test]
fn only_what_stands_in_a_package_of_the_tenant_is_let_in() {
    let enrolled = enrolled();
    let server = gate(&enrolled, "t");
    let made = enrolled.certify("t", "a", "s", None).unwrap();
    let agent = Arc::new(client(&made));
    // Signed by the authority, and in no package: whoever has its key alone lets nobody in.
    assert!(shake(&server, &agent, "gateway.test").is_err());
    // In that of another tenant as little.
    enrolled.learn(&[change(&package("u", &made.fingerprint, None))]);
    assert!(shake(&server, &agent, "gateway.test").is_err());
    enrolled.learn(&[change(&package("t", &made.fingerprint, None))]);
    for name in ["gateway.test", "127.0.0.1"] {
        assert_eq!(shake(&server, &agent, name), Ok(false));
    }
    // Who comes again shows its certificate again.
    assert_eq!(shake(&server, &agent, "gateway.test"), Ok(false));
    assert!(shake(&server, &agent, "another.test").is_err());
    // The gateway of the other tenant neither believes it nor is believed.
    assert!(shake(&gate(&enrolled, "u"), &agent, "gateway.test").is_err());
    // A gateway's own certificate is no agent's.
    let own = Gate::new(enrolled.clone(), "t".to_owned(), vec!["x".to_owned()]).own().unwrap();
    assert!(enrolled.admit("t", &own.cert[0], &[], UnixTime::now()).is_err());

    enrolled.learn(&[change(&package("t", &made.fingerprint, Some(1)))]);
    assert!(shake(&server, &agent, "gateway.test").is_err());
    // Nor where the package or the authority is gone.
    let stands = package("t", &made.fingerprint, None);
    enrolled.learn(&[change(&stands)]);
    assert!(shake(&server, &agent, "gateway.test").is_ok());
    enrolled.learn(&[ResourceChange { before: Some(stands.clone()), after: None }]);
    assert!(shake(&server, &agent, "gateway.test").is_err() && enrolled.package("p").is_none());
}

#[test]
fn only_the_key_of_a_request_counts() {
    let enrolled = enrolled();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["gateway.test".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "admin.other.serviceradar");
    let request = params.serialize_request(&key).unwrap().pem().unwrap();
    let made = enrolled.certify("t", "a", "s", Some(&request)).unwrap();
    let der = CertificateDer::from_pem_slice(made.certificate.as_bytes()).unwrap();
    let (_, read) = X509Certificate::from_der(&der).unwrap();
    assert!(!read.is_ca() && made.key.is_none());
    assert_eq!(read.public_key().subject_public_key.data.as_ref(), key.public_key_raw());
    assert_eq!(read.subject().iter_common_name().next().unwrap().as_str().unwrap(), "a.s.serviceradar");
    let names = format!("{:?}", read.subject_alternative_name().unwrap().unwrap().value.general_names);
    assert!(names.contains("spiffe://radarflow/agent/s/a") && !names.contains("gateway.test"), "{names}");
    let usage = read.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth);
    assert_eq!(hex::encode(read.raw_serial()), made.serial);
    // A request that its key did not sign, and what is none.
    let broken = request.replacen("MII", "MIJ", 1);
    for bad in [broken.as_str(), "", "hello", &request.repeat(100)] {
        assert!(enrolled.certify("t", "a", "s", Some(bad)).is_err());
    }
}

#[tokio::test]
async fn a_connection_lives_as_long_as_its_certificate_lets_it_in() {
    let enrolled = enrolled();
    let made = enrolled.certify("t", "a", "s", None).unwrap();
    let der = CertificateDer::from_pem_slice(made.certificate.as_bytes()).unwrap();
    enrolled.learn(&[change(&package("t", &made.fingerprint, None))]);
    let admission = Arc::new(enrolled.admit("t", &der, &[], UnixTime::now()).unwrap());
    let cut = tokio::spawn(enrolled.cut(admission.clone()));
    // What does not concern it does not end it; a renewal keeps what was before.
    enrolled.learn(&[change(&package("u", "00", None))]);
    let fields = json!({"agent_id": "a", "site": "s", "fingerprint": "99", "previous_fingerprint": made.fingerprint});
    enrolled.learn(&[change(&resource("t", Table::EdgePackage, "p", fields, &[]))]);
    tokio::task::yield_now().await;
    assert!(!cut.is_finished() && enrolled.stands(&admission).is_some());
    enrolled.learn(&[change(&package("t", &made.fingerprint, Some(1)))]);
    cut.await.unwrap();
    // Nor without its authority, though another has come, nor when it is over.
    enrolled.learn(&[change(&package("t", &made.fingerprint, None))]);
    let cut = tokio::spawn(enrolled.cut(admission.clone()));
    enrolled.learn(&[change(&authority(&enrolled, "t", "next", 2))]);
    tokio::task::yield_now().await;
    assert!(!cut.is_finished() && enrolled.stands(&admission).is_some());
    let gone = authority(&enrolled, "t", "agents", 1);
    enrolled.learn(&[ResourceChange { before: Some(gone), after: None }]);
    cut.await.unwrap();
    assert!(enrolled.stands(&admission).is_none() && enrolled.admit("t", &der, &[], UnixTime::now()).is_err());
    let over = Admission { not_after_us: now_us() - 1, ..Arc::into_inner(admission).unwrap() };
    enrolled.cut(Arc::new(over)).await;
}

#[test]
fn who_has_the_key_of_an_authority_alone_is_nobody() {
    let enrolled = enrolled();
    let made = enrolled.certify("t", "a", "s", None).unwrap();
    enrolled.learn(&[change(&package("t", &made.fingerprint, None))]);
    // The same serial number, of another agent.
    let authority = enrolled.with("t", |of| of.newest().cloned()).unwrap();
    let issuer = enrolled.issuer(&authority).unwrap();
    let (mut params, ..) = lasting(&[], RENEWED, i64::MAX).unwrap();
    params.serial_number = Some(SerialNumber::from_slice(&hex::decode(&made.serial).unwrap()));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.subject_alt_names.push(SanType::URI("spiffe://radarflow/agent/s/other".try_into().unwrap()));
    let forged = params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
    let refused = enrolled.admit("t", forged.der(), &[], UnixTime::now()).unwrap_err();
    assert_eq!(refused, rustls::Error::InvalidCertificate(CertificateError::Revoked));
}

#[test]
fn authorities_follow_each_other_and_agents_know_both() {
    let enrolled = enrolled();
    let own = |names: &str| {
        let gate = Gate::new(enrolled.clone(), "t".to_owned(), vec![names.to_owned()]);
        gate.own().unwrap().cert[0].clone()
    };
    let old = enrolled.certify("t", "a", "s", None).unwrap();
    enrolled.learn(&[change(&package("t", &old.fingerprint, None))]);
    enrolled.learn(&[change(&authority(&enrolled, "t", "next", 2))]);
    // Who knows the eldest alone believes the gateway still; who comes now is signed by the newest, and knows both.
    let server = gate(&enrolled, "t");
    assert_eq!(shake(&server, &Arc::new(client(&old)), "gateway.test"), Ok(false));
    let new = enrolled.certify("t", "a", "s", None).unwrap();
    assert_eq!(new.authorities.matches("BEGIN CERTIFICATE").count(), 2);
    let admitted = |made: &Certified| {
        let der = CertificateDer::from_pem_slice(made.certificate.as_bytes()).unwrap();
        enrolled.learn(&[change(&package("t", &made.fingerprint, None))]);
        enrolled.admit("t", &der, &[], UnixTime::now()).unwrap().authority.0
    };
    assert_eq!((admitted(&old).as_str(), admitted(&new).as_str()), ("agents", "next"));
    assert_ne!(own("x"), own("y"));
}

#[test]
fn tokens_are_signed_by_what_follows_from_the_secret() {
    let enrolled = enrolled();
    let again = Enrolled::new(Arc::default(), &[7; 32]);
    let key = aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ED25519, again.public_key());
    key.verify(b"said", &enrolled.sign(b"said")).unwrap();
    assert!(key.verify(b"other", &enrolled.sign(b"said")).is_err());
    let other = Enrolled::new(Arc::default(), &[8; 32]);
    assert_ne!(other.public_key(), again.public_key());
}
