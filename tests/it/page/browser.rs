//! A headless Chromium, spoken to over WebDriver: JSON over HTTP.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use ticketd_testing::*;

/// As root in a container, alone, and asking nobody for anything by itself.
const FLAGS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--window-size=1280,1000",
];

/// A browser with one page. Dropping it ends it.
pub(super) struct Browser {
    driver: SocketAddr,
    session: String,
    _chromedriver: Process,
}

impl Browser {
    /// Starts one with an empty profile.
    pub(super) async fn start() -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let driver = free.local_addr().unwrap();
        drop(free);
        let mut command = Command::new("chromedriver");
        command.arg(format!("--port={}", driver.port()));
        let chromedriver = Process::spawn(&mut command, None);
        wait_until("chromedriver listens", async || {
            Client::connect(driver).await.is_ok()
        })
        .await;
        let options = json!({ "args": FLAGS });
        let logs = json!({ "browser": "ALL", "performance": "ALL" });
        let wanted = json!({ "goog:chromeOptions": options, "goog:loggingPrefs": logs });
        let wanted = json!({ "capabilities": { "alwaysMatch": wanted } });
        let made = call(driver, "POST", "/session", &wanted).await;
        Self {
            driver,
            session: made["sessionId"].as_str().expect("a session").to_owned(),
            _chromedriver: chromedriver,
        }
    }

    async fn command(&self, name: &str, arguments: &Value) -> Value {
        let path = format!("/session/{}/{name}", self.session);
        call(self.driver, "POST", &path, arguments).await
    }

    /// Goes to an address and waits until it is loaded.
    pub(super) async fn open(&self, url: &str) {
        self.command("url", &json!({ "url": url })).await;
    }

    /// What a function with this body returns in the page.
    pub(super) async fn run(&self, body: &str) -> Value {
        let script = json!({ "script": body, "args": [] });
        self.command("execute/sync", &script).await
    }

    /// The same of a promise.
    pub(super) async fn promised(&self, expression: &str) -> Value {
        let body =
            format!("const done = arguments[0]; ({expression}).then(done, e => done(String(e)))");
        let script = json!({ "script": body, "args": [] });
        self.command("execute/async", &script).await
    }

    /// What an element says.
    pub(super) async fn text(&self, selector: &str) -> String {
        let body = format!("return document.querySelector('{selector}')?.textContent ?? ''");
        self.run(&body).await.as_str().unwrap().to_owned()
    }

    /// Waits until an element says that.
    pub(super) async fn says(&self, selector: &str, words: &str) {
        let what = format!("{words:?} in {selector}");
        wait_until(&what, async || self.text(selector).await.contains(words)).await;
    }

    /// Clicks on an element.
    pub(super) async fn click(&self, selector: &str) {
        let body = format!("document.querySelector('{selector}').click()");
        self.run(&body).await;
    }

    /// Writes into a field, as a person who types would.
    pub(super) async fn fill(&self, selector: &str, words: &str) {
        let words = Value::from(words);
        self.run(&format!(
            "const field = document.querySelector('{selector}'); field.value = {words}; \
             field.dispatchEvent(new Event('input', {{ bubbles: true }}))"
        ))
        .await;
    }

    /// Has Chromium's own protocol do something.
    pub(super) async fn devtools(&self, command: &str, parameters: Value) -> Value {
        let arguments = json!({ "cmd": command, "params": parameters });
        self.command("goog/cdp/execute", &arguments).await
    }

    /// Presses Tab or Enter.
    pub(super) async fn press(&self, key: &str) {
        let (code, text) = if key == "Tab" { (9, "") } else { (13, "\r") };
        for kind in ["keyDown", "keyUp"] {
            let event = json!({ "type": kind, "key": key, "code": key, "text": text,
                "windowsVirtualKeyCode": code });
            self.devtools("Input.dispatchKeyEvent", event).await;
        }
    }

    /// What a screen reader is told that there is, by its roles.
    pub(super) async fn roles(&self) -> Vec<String> {
        let tree = self
            .devtools("Accessibility.getFullAXTree", json!({}))
            .await;
        let nodes = tree["nodes"].as_array().unwrap().iter();
        let nodes = nodes.filter(|node| node["ignored"] == false);
        nodes
            .map(|node| node["role"]["value"].as_str().unwrap().to_owned())
            .collect()
    }

    /// A screen of this width, in this scheme.
    pub(super) async fn appear(&self, width: u32, scheme: &str) {
        let screen = json!({ "width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.devtools("Emulation.setDeviceMetricsOverride", screen)
            .await;
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.devtools(
            "Emulation.setEmulatedMedia",
            json!({ "features": features }),
        )
        .await;
    }

    /// What is on the screen, as a PNG.
    pub(super) async fn screenshot(&self) -> Vec<u8> {
        let path = format!("/session/{}/screenshot", self.session);
        let shot = call(self.driver, "GET", &path, &Value::Null).await;
        STANDARD.decode(shot.as_str().unwrap()).unwrap()
    }

    /// What the console has been told since it was last asked: its source, and the message.
    pub(super) async fn console(&self) -> Vec<(String, String)> {
        let entries = self.command("se/log", &json!({ "type": "browser" })).await;
        let entries = entries.as_array().unwrap().iter();
        let text = |entry: &Value, field: &str| entry[field].as_str().unwrap().to_owned();
        entries
            .map(|entry| (text(entry, "source"), text(entry, "message")))
            .collect()
    }

    /// The addresses that were asked since the last time.
    pub(super) async fn requested(&self) -> Vec<String> {
        let log = json!({ "type": "performance" });
        let entries = self.command("se/log", &log).await;
        let entries = entries.as_array().unwrap().iter();
        entries
            .filter_map(|entry| {
                let event: Value = serde_json::from_str(entry["message"].as_str()?).ok()?;
                let event = &event["message"];
                let is_request = event["method"] == "Network.requestWillBeSent";
                let url = event["params"]["request"]["url"].as_str()?;
                is_request.then(|| url.to_owned())
            })
            .collect()
    }
}

impl Drop for Browser {
    /// The driver ends the browser, which would outlive it otherwise.
    fn drop(&mut self) {
        let end = format!(
            "DELETE /session/{} HTTP/1.1\r\nhost: {}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            self.session, self.driver
        );
        let wait = Some(Duration::from_secs(10));
        let ended = TcpStream::connect(self.driver).and_then(|mut stream| {
            stream.set_read_timeout(wait)?;
            stream.write_all(end.as_bytes())?;
            stream.read(&mut [0; 1])
        });
        if let Err(error) = ended {
            eprintln!("the browser may still be running: {error}");
        }
    }
}

/// What the driver answers to a command, which it must carry out.
async fn call(driver: SocketAddr, method: &str, path: &str, arguments: &Value) -> Value {
    let body = match arguments {
        Value::Null => String::new(),
        arguments => arguments.to_string(),
    };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {driver}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut client = Client::connect(driver).await.unwrap();
    let answer = client.ask(request).await;
    let mut json: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(answer.status, 200, "{method} {path} {arguments}: {json}");
    json["value"].take()
}
