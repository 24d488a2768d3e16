//! What is heard of nodes while they are at work.

use anyhow::Result;
use tokio::sync::mpsc;

/// 64 words wait for whoever says them; nodes wait then.
const WAITING: usize = 64;

/// A node that is at work, or has ended.
pub(crate) enum News {
    /// What is done now.
    Step { name: String, what: String },
    /// What became of it.
    Ended { name: String, outcome: Result<()>, said: String, seconds: u64 },
}

/// Where it is said, and where it is heard.
pub(crate) fn channel() -> (mpsc::Sender<News>, mpsc::Receiver<News>) {
    mpsc::channel(WAITING)
}

/// What one node says of itself.
pub(crate) struct Steps {
    pub(crate) name: String,
    pub(crate) news: mpsc::Sender<News>,
}

impl Steps {
    /// Says what is done now.
    pub(crate) async fn say(&self, what: String) {
        // Whoever listens is there until all have ended.
        let _ = self.news.send(News::Step { name: self.name.clone(), what }).await;
    }
}
