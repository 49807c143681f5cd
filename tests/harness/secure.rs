//! A server behind TLS, whose certificate a made-up authority has signed, and that lets in only those
//! whom it has signed too.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use super::*;

struct Pki {
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { authority }
    }

    /// A certificate for a name, and its key.
    fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.authority).unwrap(), key)
    }

    /// Forwards to `server` what clients with a certificate send; gives the port.
    fn guard(&self, server: std::net::SocketAddr) -> u16 {
        let (certificate, key) = self.issue("localhost");
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients.build().unwrap())
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        forward(config, server)
    }
}

/// A server that shows this certificate to everybody.
fn signed((certificate, key): (rcgen::Certificate, KeyPair)) -> ServerConfig {
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap()
}

/// Forwards to `server` what clients send through TLS; gives the port.
fn forward(mut config: ServerConfig, server: std::net::SocketAddr) -> u16 {
    // The engine behind tells the two apart by their first bytes.
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let (sender, port) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            sender.send(listener.local_addr().unwrap().port()).unwrap();
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let Ok(mut server) = tokio::net::TcpStream::connect(server).await else {
                        return;
                    };
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut server).await;
                });
            }
        });
    });
    port.recv().unwrap()
}

#[test]
fn a_server_is_measured_through_tls_by_those_who_trust_it_and_whom_it_trusts() {
    let sim = SimProcess::start(&[]);
    let pki = Pki::new();
    let port = pki.guard(sim.url.strip_prefix("http://").unwrap().parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, pem: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path.display().to_string()
    };
    let (certificate, key) = pki.issue("client");
    let ca = file("ca.pem", pki.authority.pem());
    let client = format!(
        "cert = {:?}, key = {:?}",
        file("client.pem", certificate.pem()),
        file("client.key", key.serialize_pem())
    );
    let run = |tls: &str, more: &str| {
        let backend = format!(
            "[[backend]]\nname = \"b\"\nkind = \"vllm\"\nbase_url = \"https://localhost:{port}\"\n\
             models = [\"m\"]\nprobe = false\ntls = {{ {tls} }}\n{more}\n"
        );
        let project = Project::new("", &backend, "[[bench]]\nloads = [\"2conc\"]");
        project.bench(&["--require-server", "--self-check", "never"])
    };
    run(&format!("ca = {ca:?}, {client}"), "").expect(0).says("verdict  pass");
    run(&format!("ca = {ca:?}, {client}"), "http2 = true").expect(0).says("verdict  pass");
    run(&format!("insecure = true, {client}"), "").expect(0).says("verdict  pass");
    run(&client, "").expect(101).says("failed   tls: 20");
    run(&format!("ca = {:?}", "none.pem"), "").expect(2).says("plan.toml:").says("`none.pem`");
    // TLS 1.3 tells a client that it is not trusted only after the handshake.
    run(&format!("ca = {ca:?}"), "").expect(101).says("failed   ");
}

#[test]
fn a_server_that_signs_itself_is_trusted_by_those_who_name_its_certificate() {
    let sim = SimProcess::start(&[]);
    // As `openssl req -x509` makes them.
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let config = signed((certificate.clone(), key));
    let port = forward(config, sim.url.strip_prefix("http://").unwrap().parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, certificate.pem()).unwrap();
    let backend = format!(
        "[[backend]]\nname = \"b\"\nkind = \"vllm\"\nbase_url = \"https://localhost:{port}\"\n\
         models = [\"m\"]\n"
    );
    let run = |args: &[&str], twin: Option<(&str, &str)>| {
        let project = Project::new("", &backend, "[[bench]]\nloads = [\"2conc\"]");
        let common = ["--bench", "--require-server", "--self-check", "never", "--no-html"];
        let mut command = project.command(&[&common[..], args].concat());
        command.envs(twin);
        finish(command)
    };
    let done = "Failed requests:                         0";
    let ca = ca.display().to_string();
    run(&["--ca", &ca], None).says(done);
    run(&[], Some(("SERVEBENCH_CA", &ca))).says(done);
    run(&["--insecure"], None).says(done);
    run(&[], Some(("SERVEBENCH_INSECURE", "1"))).says(done);
    let refused = run(&[], None);
    assert_ne!(refused.code, 0);
    refused.says("CaUsedAsEndEntity").says("or --ca");
}

#[test]
fn a_server_whose_certificate_has_expired_or_is_of_another_name_is_there_and_fails() {
    let sim = SimProcess::start(&[]);
    let server = sim.url.strip_prefix("http://").unwrap().parse().unwrap();
    let pki = Pki::new();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, pki.authority.pem()).unwrap();
    let issue = |name: &str, until: i32| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        (params.signed_by(&key, &pki.authority).unwrap(), key)
    };
    for (certificate, told) in
        [(issue("localhost", 2021), "xpired"), (issue("other", 4000), "other")]
    {
        let port = forward(signed(certificate), server);
        let backend = format!(
            "[[backend]]\nname = \"b\"\nkind = \"vllm\"\nbase_url = \"https://localhost:{port}\"\n\
             models = [\"m\"]\ntls = {{ ca = {ca:?} }}\n"
        );
        let run = Project::new("", &backend, "[[bench]]\nloads = [\"2conc\"]").bench(&[]);
        run.expect(2).says(told).says("FAILED");
    }
}

#[test]
fn a_machine_without_certificates_of_authorities_measures_by_plain_http() {
    let sim = SimProcess::start(&[]);
    let backend = format!(
        "[[backend]]\nname = \"b\"\nkind = \"vllm\"\nbase_url = \"{}\"\nmodels = [\"m\"]\n",
        sim.url
    );
    let project = Project::new("", &backend, "[[bench]]\nloads = [\"2conc\"]");
    let mut command = project.command(&["--bench", "--require-server", "--self-check", "never"]);
    let nowhere = project.folder.path().join("none");
    command.env("SSL_CERT_FILE", &nowhere).env("SSL_CERT_DIR", &nowhere);
    finish(command).says("Failed requests:                         0");
}
