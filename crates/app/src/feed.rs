//! What a command tells while it works and at its end: a stream of frames, bounded, to a terminal in the same process or
//! over the control socket.

use crate::answer::{Answer, ListedKey, ListedRecord};
use crate::exit::Failure;
use crate::limits::FRAMES_IN_FLIGHT;
use engine::ports::progress::Progress;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// One piece of the stream. The last one is `Answer` or `Failed`, and nothing comes after it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Frame {
    /// How far it is.
    Progress {
        /// Items done.
        done: u64,
        /// Of so many, where that is known.
        total: Option<u64>,
        /// What the items are.
        what: String,
    },
    /// One key of a listing.
    Key(ListedKey),
    /// One archived record of a listing.
    Record(ListedRecord),
    /// The names of a table's columns: before its rows.
    Columns(Vec<String>),
    /// One row of a table.
    Row(Vec<serde_json::Value>),
    /// Done.
    Answer {
        /// The answer.
        answer: Answer,
        /// The exit code.
        code: u8,
    },
    /// Ended early.
    Failed {
        /// The whole chain of causes, in one line.
        why: String,
        /// The exit code.
        code: u8,
    },
}

/// The writing end.
#[derive(Clone)]
pub(crate) struct Feed(mpsc::Sender<Frame>);

/// A stream of frames and the end that writes it.
pub(crate) fn feed() -> (Feed, mpsc::Receiver<Frame>) {
    let (sender, receiver) = mpsc::channel(FRAMES_IN_FLIGHT);
    (Feed(sender), receiver)
}

impl Feed {
    /// Sends a frame; `false`: nobody reads any more.
    pub(crate) async fn send(&self, frame: Frame) -> bool {
        self.0.send(frame).await.is_ok()
    }

    /// The same, on a thread that may block.
    pub(crate) fn send_blocking(&self, frame: Frame) -> bool {
        self.0.blocking_send(frame).is_ok()
    }

    /// Sends the last frame.
    pub(crate) async fn end(&self, result: Result<(Answer, u8), Failure>) -> bool {
        let frame = match result {
            Ok((answer, code)) => Frame::Answer { answer, code },
            Err(failure) => Frame::Failed { why: failure.chain(), code: failure.code() },
        };
        self.send(frame).await
    }
}

impl Progress for Feed {
    fn at(&self, done: u64, total: Option<u64>, what: &'static str) {
        // A reader that is slow, or gone, only misses how far the work is; its end is sent by `end`.
        drop(self.0.try_send(Frame::Progress { done, total, what: what.to_owned() }));
    }
}
