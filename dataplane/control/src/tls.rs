//! TLS 1.3 with pinned certificates: no authority, no names, no validity times, only "this very
//! certificate" and the proof that the peer holds its key.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error,
    PeerIncompatible, ServerConfig, SignatureScheme,
};
use sha2::{Digest, Sha256};
use std::fmt;
use std::sync::Arc;

/// One end's certificate and private key, both PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// The private key: a secret.
    pub key: String,
}

impl Identity {
    /// A new self-signed identity (ECDSA P-256). The name is for people who read the certificate.
    pub fn generate(name: &str) -> Result<Self, TlsError> {
        let mut params = rcgen::CertificateParams::new(Vec::new()).map_err(TlsError::Generate)?;
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().map_err(TlsError::Generate)?;
        let certificate = params.self_signed(&key).map_err(TlsError::Generate)?;
        Ok(Self {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }

    fn parse(&self) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), TlsError> {
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes())
            .map_err(|source| TlsError::Pem("private key", source))?;
        Ok((parse_certificate(&self.certificate)?, key))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

/// SHA-256 of a certificate's DER form.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(certificate.as_ref()).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// Fingerprint of the first certificate in a PEM text.
pub fn fingerprint(certificate_pem: &str) -> Result<Fingerprint, TlsError> {
    Ok(Fingerprint::of(&parse_certificate(certificate_pem)?))
}

/// Why a certificate or key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The text is not what it should be.
    #[error("the PEM text holds no usable {0}")]
    Pem(&'static str, #[source] rustls::pki_types::pem::Error),
    /// A new identity could not be made.
    #[error("cannot make a certificate")]
    Generate(#[source] rcgen::Error),
    /// Certificate and key do not go together, or are of a kind that is not supported.
    #[error("certificate and key cannot be used for TLS 1.3")]
    Unusable(#[source] Error),
    /// The listener is gone.
    #[error("cannot accept connections")]
    Listener(#[source] std::io::Error),
}

fn parse_certificate(pem: &str) -> Result<CertificateDer<'static>, TlsError> {
    CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|source| TlsError::Pem("certificate", source))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Client side: presents `identity`, accepts exactly the certificate `peer_pem`.
pub(crate) fn client_config(identity: &Identity, peer_pem: &str) -> Result<ClientConfig, TlsError> {
    let (certificate, key) = identity.parse()?;
    let provider = provider();
    let verifier = PinnedServer {
        certificate: parse_certificate(peer_pem)?,
        algorithms: provider.signature_verification_algorithms,
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Unusable)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(vec![certificate], key)
        .map_err(TlsError::Unusable)?;
    // One handshake per request, each with both certificates shown anew: nothing to resume.
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_sni = false;
    Ok(config)
}

/// Server side: presents `identity`, accepts each certificate whose fingerprint `accepts`.
pub(crate) fn server_config(
    identity: &Identity,
    accepts: impl Fn(&Fingerprint) -> bool + Send + Sync + 'static,
) -> Result<ServerConfig, TlsError> {
    let (certificate, key) = identity.parse()?;
    let provider = provider();
    let verifier = PinnedClients {
        accepts: Box::new(accepts),
        algorithms: provider.signature_verification_algorithms,
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Unusable)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(vec![certificate], key)
        .map_err(TlsError::Unusable)?;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(config)
}

/// Fingerprint of the certificate that a peer has proven to hold the key of.
pub(crate) fn peer_fingerprint(connection: &rustls::ServerConnection) -> Option<Fingerprint> {
    connection.peer_certificates()?.first().map(Fingerprint::of)
}

struct PinnedServer {
    certificate: CertificateDer<'static>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for PinnedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *end_entity == self.certificate {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(not_pinned())
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl fmt::Debug for PinnedServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PinnedServer")
    }
}

struct PinnedClients {
    accepts: Box<dyn Fn(&Fingerprint) -> bool + Send + Sync>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for PinnedClients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if (self.accepts)(&Fingerprint::of(end_entity)) {
            Ok(ClientCertVerified::assertion())
        } else {
            Err(not_pinned())
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl fmt::Debug for PinnedClients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PinnedClients")
    }
}

fn not_pinned() -> Error {
    Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
}

fn only_tls13() -> Error {
    Error::PeerIncompatible(PeerIncompatible::Tls13RequiredForQuic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_the_sha_256_of_the_der() {
        let identity = Identity::generate("drive d0").unwrap();
        let fingerprint = fingerprint(&identity.certificate).unwrap();
        assert_eq!(fingerprint.to_string().len(), 64);
        let der = parse_certificate(&identity.certificate).unwrap();
        assert_eq!(fingerprint.0[..], Sha256::digest(&der)[..]);
    }

    #[test]
    fn an_identity_does_not_print_its_key() {
        let identity = Identity::generate("drive d0").unwrap();
        assert_eq!(format!("{identity:?}"), "Identity { .. }");
    }

    #[test]
    fn text_that_is_no_certificate_is_refused_by_name() {
        let error = fingerprint("nothing here").unwrap_err();
        assert!(error.to_string().contains("certificate"), "{error}");
    }
}
