//! trl-lib/tldr: posts of Reddit with their writers' summaries (Völske et al. 2017, doi:10.18653/v1/W17-4508; the
//! filtered set of Stiennon et al. 2020, arXiv:2009.01325).

use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::records::not_empty;
use super::{Records, read_parquet};

/// The hub's repository, and the files of its splits. Its validation file is not read: part of the training file is held out.
pub const REPOSITORY: &str = "trl-lib/tldr";
pub const TRAIN: &str = "data/train-00000-of-00001.parquet";
pub const TEST: &str = "data/test-00000-of-00001.parquet";

/// What stands before a post's text, and the marker after which the summary follows.
const POST: &str = "\nPOST: ";
const MARKER: &str = "\n\nTL;DR:";

/// A post and its summary.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Summary {
    /// `SUBREDDIT: r/...`, `TITLE: ...`, `POST: ...`, `TL;DR:`.
    pub prompt: String,
    /// With a space in front.
    pub completion: String,
}

impl Summary {
    /// The prompt as what stands before the post's text, the text, and what stands behind it.
    pub fn parts(&self) -> Option<[&str; 3]> {
        let begin = self.prompt.find(POST)? + POST.len();
        let end = self.prompt.strip_suffix(MARKER)?.len();
        (begin <= end).then(|| [&self.prompt[..begin], &self.prompt[begin..end], &self.prompt[end..]])
    }
}

/// The summaries of a file.
///
/// # Errors
/// Those of [`read_parquet`].
pub fn read(path: &Path) -> Result<Records<Summary>> {
    let check = |summary: Summary| {
        not_empty("completion", &summary.completion)?;
        summary.parts().context("the prompt is not SUBREDDIT, TITLE, POST, TL;DR:")?;
        Ok(summary)
    };
    read_parquet(path)?.map(check).some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_has_three_parts() {
        let prompt = "SUBREDDIT: r/x\n\nTITLE: t\n\nPOST: a\n\nb\n\nTL;DR:".to_string();
        let summary = Summary { prompt, completion: " c".into() };
        assert_eq!(summary.parts().unwrap(), ["SUBREDDIT: r/x\n\nTITLE: t\n\nPOST: ", "a\n\nb", "\n\nTL;DR:"]);
        let empty = Summary { prompt: "TITLE: t\n\nPOST: \n\nTL;DR:".into(), ..summary };
        assert_eq!(empty.parts().unwrap()[1], "");
    }
}
