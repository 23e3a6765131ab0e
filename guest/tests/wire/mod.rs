//! The host's side of the control protocol, as little as tests need, over a real agent's standard input and output.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(unreachable_pub, reason = "a module of tests is no library")]

use std::collections::BTreeMap;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use guest::control::{self, AgentErrorKind, Exec, Exited, Hello, Request, Response};
use guest::frame::{Frame, FrameError};

/// A running agent.
pub struct Agent {
    child: Child,
    to: Option<ChildStdin>,
    from: ChildStdout,
    /// Its first word.
    pub hello: Hello,
    last: u32,
}

/// What came back: frames before the response, and the response.
pub struct Answer {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub data: Vec<u8>,
    pub response: Response,
}

impl Agent {
    pub fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_countersign-agent"))
            .arg("stdio")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let to = child.stdin.take();
        let mut from = child.stdout.take().unwrap();
        let frame = Frame::read(&mut from).unwrap();
        assert_eq!((frame.kind, frame.id), (control::HELLO, 0));
        let hello = serde_json::from_slice(&frame.body).unwrap();
        Self { child, to, from, hello, last: 0 }
    }

    pub fn send(&mut self, kind: u8, id: u32, body: &[u8]) {
        Frame { kind, id, body: body.to_vec() }.write(self.to.as_mut().unwrap()).unwrap();
    }

    pub fn receive(&mut self) -> Result<Frame, FrameError> {
        Frame::read(&mut self.from)
    }

    /// Sends a request as it is, and then `content` as the content of a file.
    pub fn ask_raw(&mut self, request: &[u8], content: Option<&[&[u8]]>) -> Answer {
        self.last += 1;
        let id = self.last;
        self.send(control::REQUEST, id, request);
        for part in content.into_iter().flatten() {
            self.send(control::DATA, id, part);
        }
        if content.is_some() {
            self.send(control::END, id, b"");
        }
        let (mut stdout, mut stderr, mut data) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            let frame = self.receive().unwrap();
            assert_eq!(frame.id, id);
            match frame.kind {
                control::STDOUT => stdout.extend(frame.body),
                control::STDERR => stderr.extend(frame.body),
                control::DATA => data.extend(frame.body),
                control::RESPONSE => {
                    let response = serde_json::from_slice(&frame.body).unwrap();
                    return Answer { stdout, stderr, data, response };
                }
                kind => panic!("a frame of kind {kind}"),
            }
        }
    }

    pub fn ask(&mut self, request: &Request) -> Answer {
        self.ask_raw(&serde_json::to_vec(request).unwrap(), None)
    }

    pub fn exec(&mut self, exec: Exec) -> (Exited, Answer) {
        let answer = self.ask(&Request::Exec(exec));
        match answer.response {
            Response::Exited(exited) => (exited, answer),
            other => panic!("{other:?}"),
        }
    }

    /// No more requests; the agent's exit status.
    pub fn finish(mut self) -> Option<i32> {
        self.to = None;
        self.child.wait().unwrap().code()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.to = None;
        self.child.wait().unwrap();
    }
}

/// The kind of an error; panics for anything else.
pub fn kind(response: &Response) -> AgentErrorKind {
    match response {
        Response::Error(error) => error.kind,
        other => panic!("{other:?} is no error"),
    }
}

/// A shell command with a time limit of a minute and 1 MiB of output.
pub fn shell(command: &str) -> Exec {
    Exec {
        argv: ["sh", "-c", command].map(str::to_owned).to_vec(),
        env: BTreeMap::new(),
        cwd: None,
        user: None,
        timeout_ms: 60_000,
        output_limit: 1024 * 1024,
    }
}
