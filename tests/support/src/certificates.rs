//! A CA of a test's own, and what it signs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// What makes certificates, as an operator would.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/certificates.sh");

/// A folder with a CA and its certificates. It goes with the value.
pub struct Certificates {
    dir: PathBuf,
}

impl Certificates {
    /// Makes a CA.
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::SeqCst);
        let name = format!("ticketd-tls-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        let made = Self { dir };
        made.make(&["ca"], &[], "397");
        made
    }

    /// Signs a certificate for host names and addresses.
    pub fn server(&self, name: &str, hosts: &[&str]) {
        self.make(&["server"], &[&[name], hosts].concat(), "397");
    }

    /// The same, and it has expired.
    pub fn expired(&self, name: &str, hosts: &[&str]) {
        self.make(&["server"], &[&[name], hosts].concat(), "-1");
    }

    /// Signs a client's certificate.
    pub fn client(&self, name: &str) {
        self.make(&["client"], &[name], "397");
    }

    /// Signs a client's certificate with this subject, as `/CN=…`, and these alternative names, as
    /// `DNS:…`, of which there may be none.
    pub fn client_named(&self, name: &str, subject: &str, names: &str) {
        let file = |kind: &str| self.path(&format!("{name}.{kind}"));
        let mut extensions = "extendedKeyUsage=clientAuth".to_owned();
        if !names.is_empty() {
            extensions.push_str(&format!("\nsubjectAltName={names}"));
        }
        std::fs::write(file("ext"), extensions).unwrap();
        let (key, request) = (file("key"), file("csr"));
        let new = ["req", "-new", "-newkey", "rsa:2048", "-noenc", "-utf8"];
        let new = [
            &new[..],
            &["-subj", subject, "-keyout", &key, "-out", &request],
        ];
        openssl(&new.concat());
        let (ca, ca_key) = (self.path("ca.pem"), self.path("ca.key"));
        let (made, extensions) = (file("pem"), file("ext"));
        let sign = [
            "x509", "-req", "-in", &request, "-CA", &ca, "-CAkey", &ca_key,
        ];
        let sign = [
            &sign[..],
            &["-CAcreateserial", "-extfile", &extensions, "-out", &made],
        ];
        openssl(&sign.concat());
    }

    /// A file of the folder: `ca.pem`, or a name with `.pem` or `.key` behind it.
    pub fn path(&self, file: &str) -> String {
        self.dir.join(file).to_str().unwrap().to_owned()
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Puts a certificate and its key in the place of another.
    pub fn replace(&self, name: &str, with: (&Certificates, &str)) {
        let (other, by) = with;
        for kind in ["key", "pem"] {
            let new = self.path(&format!("{name}.{kind}.new"));
            std::fs::copy(other.path(&format!("{by}.{kind}")), &new).unwrap();
            std::fs::rename(new, self.path(&format!("{name}.{kind}"))).unwrap();
        }
    }

    fn make(&self, command: &[&str], more: &[&str], days: &str) {
        let made = Command::new(SCRIPT)
            .args(command)
            .arg(&self.dir)
            .args(more)
            .env("DAYS", days)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
    }
}

fn openssl(args: &[&str]) {
    let made = Command::new("openssl").args(args).output().unwrap();
    assert!(made.status.success(), "{made:?}");
}

impl Default for Certificates {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        // What is left behind is in the folder for such things.
        let _removed = std::fs::remove_dir_all(&self.dir);
    }
}
