//! The certificates of the lab, and the kubeconfigs that carry them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use serde_json::json;

use crate::paths::Paths;
use crate::topology::{CONTROL_IP, NodeSpec, SERVICE_IP};

/// The address of the API server, as everything outside of pods uses it.
pub(crate) fn server() -> String {
    format!("https://{CONTROL_IP}:6443")
}

/// Makes everything anew.
pub(crate) fn generate(paths: &Paths, nodes: &[NodeSpec]) -> Result<()> {
    let dir = paths.pki();
    fs::create_dir_all(&dir)?;
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
    let authority = Authority::generate(&dir)?;

    authority.issue(
        "apiserver",
        &Subject::server("kube-apiserver")
            .ip(CONTROL_IP)
            .ip(SERVICE_IP)
            .ip("127.0.0.1")
            .dns("kubernetes")
            .dns("kubernetes.default")
            .dns("kubernetes.default.svc"),
    )?;
    authority.issue(
        "apiserver-kubelet-client",
        &Subject::client("lab:apiserver", "system:masters"),
    )?;
    for (file, name, group) in [
        ("admin", "lab:admin", "system:masters"),
        ("controller-manager", "system:kube-controller-manager", ""),
        ("scheduler", "system:kube-scheduler", ""),
        ("kube-proxy", "system:kube-proxy", ""),
    ] {
        authority.issue(file, &Subject::client(name, group))?;
        kubeconfig(&dir, file)?;
    }
    for node in nodes {
        let user = format!("system:node:{}", node.name);
        authority.issue(
            &node.name,
            &Subject::client(&user, "system:nodes")
                .also_server()
                .ip(&node.ip())
                .dns(&node.name),
        )?;
        kubeconfig(&dir, &node.name)?;
    }

    let account = KeyPair::generate()?;
    write(&dir, "service-account.key", &account.serialize_pem())?;
    write(&dir, "service-account.pub", &account.public_key_pem())
}

struct Authority<'a> {
    dir: &'a Path,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl<'a> Authority<'a> {
    fn generate(dir: &'a Path) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name("weft-lab", "");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let key = KeyPair::generate()?;
        write(dir, "ca.key", &key.serialize_pem())?;
        let issuer = CertifiedIssuer::self_signed(params, key)?;
        write(dir, "ca.crt", &issuer.pem())?;
        Ok(Self { dir, issuer })
    }

    fn issue(&self, file: &str, subject: &Subject) -> Result<()> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name(&subject.name, &subject.group);
        params.subject_alt_names = subject.names.clone();
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = subject.usages.clone();
        let certificate = params
            .signed_by(&key, &self.issuer)
            .with_context(|| format!("cannot sign the certificate of {}", subject.name))?;
        write(self.dir, &format!("{file}.crt"), &certificate.pem())?;
        write(self.dir, &format!("{file}.key"), &key.serialize_pem())
    }
}

struct Subject {
    name: String,
    group: String,
    usages: Vec<ExtendedKeyUsagePurpose>,
    names: Vec<SanType>,
}

impl Subject {
    fn client(name: &str, group: &str) -> Self {
        Self {
            name: name.to_owned(),
            group: group.to_owned(),
            usages: vec![ExtendedKeyUsagePurpose::ClientAuth],
            names: Vec::new(),
        }
    }

    fn server(name: &str) -> Self {
        Self {
            usages: vec![ExtendedKeyUsagePurpose::ServerAuth],
            ..Self::client(name, "")
        }
    }

    fn also_server(mut self) -> Self {
        self.usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        self
    }

    fn ip(mut self, ip: &str) -> Self {
        self.names.extend(ip.parse().ok().map(SanType::IpAddress));
        self
    }

    fn dns(mut self, name: &str) -> Self {
        self.names
            .extend(name.try_into().ok().map(SanType::DnsName));
        self
    }
}

fn name(common: &str, organization: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    if !organization.is_empty() {
        name.push(DnType::OrganizationName, organization);
    }
    name
}

/// A kubeconfig that points to the files, all of them absolute.
fn kubeconfig(dir: &Path, file: &str) -> Result<()> {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "lab", "cluster": {
            "server": server(),
            "certificate-authority": dir.join("ca.crt"),
        }}],
        "users": [{"name": file, "user": {
            "client-certificate": dir.join(format!("{file}.crt")),
            "client-key": dir.join(format!("{file}.key")),
        }}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": file}}],
        "current-context": "lab",
    });
    write(dir, &format!("{file}.kubeconfig"), &config.to_string())
}

fn write(dir: &Path, file: &str, text: &str) -> Result<()> {
    let path = dir.join(file);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}
