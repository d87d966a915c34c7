//! TLS in front of a server on loopback, with an authority and a certificate that live as long as the benchmark. Clients are
//! told to trust the authority beside the machine's own, so that each of them reads as many certificates as on a real machine.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The machine's own authorities, where most systems have them.
const SYSTEM: &str = "/etc/ssl/certs/ca-certificates.crt";

/// A certificate for loopback.
pub(crate) struct Tls {
    acceptor: TlsAcceptor,
    /// A file with the authorities to trust.
    pub(crate) trusted: PathBuf,
}

impl Tls {
    /// Certificates come from the `openssl` command: a crate that makes them would be as large as the benchmark.
    pub(crate) fn new(folder: &Path) -> Result<Tls> {
        let folder = folder.canonicalize()?;
        openssl(&folder, "-subj /CN=afterimage-bench-authority -keyout authority.key -out authority.pem")?;
        openssl(
            &folder,
            "-CA authority.pem -CAkey authority.key -subj /CN=afterimage-bench -addext subjectAltName=IP:127.0.0.1 \
             -addext basicConstraints=critical,CA:FALSE -keyout server.key -out server.pem",
        )?;
        let certificates = CertificateDer::pem_file_iter(folder.join("server.pem"))?.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(folder.join("server.key"))?;
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(certificates, key)?;
        let trusted = folder.join("trusted.pem");
        // Where the machine has its authorities elsewhere, this one is the only one.
        let machines = fs::read_to_string(SYSTEM).unwrap_or_default();
        fs::write(&trusted, machines + &fs::read_to_string(folder.join("authority.pem"))?)?;
        Ok(Tls { acceptor: TlsAcceptor::from(Arc::new(config)), trusted })
    }

    /// A port of loopback where that server answers with TLS.
    pub(crate) async fn before(&self, server: SocketAddr) -> Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("bind a port of loopback")?;
        let address = listener.local_addr()?;
        let acceptor = self.acceptor.clone();
        tokio::spawn(async move {
            while let Ok((plain, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                // A client that is killed ends its connection in the middle; one that mistrusts says so itself.
                tokio::spawn(async move { drop(pass(acceptor, plain, server).await) });
            }
        });
        Ok(address)
    }
}

async fn pass(acceptor: TlsAcceptor, plain: TcpStream, server: SocketAddr) -> Result<()> {
    plain.set_nodelay(true)?;
    let mut inside = acceptor.accept(plain).await?;
    let mut outside = TcpStream::connect(server).await?;
    outside.set_nodelay(true)?;
    copy_bidirectional(&mut inside, &mut outside).await?;
    Ok(())
}

/// Makes a key and a certificate.
fn openssl(folder: &Path, words: &str) -> Result<()> {
    let mut command = Command::new("openssl");
    command.current_dir(folder).args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1".split(' '));
    command.args("-noenc -days 2".split(' ')).args(words.split_whitespace());
    let output = command.output().context("run openssl")?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
