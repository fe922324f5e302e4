//! Every task of the cache with its own reward: a demonstration has the full reward, something else has less.

use qstar::experiment::{TextSources, text_data};
use qstar::models::{Source, Vocabulary};
use qstar::sandbox::Sandbox;
use qstar::tasks::text::{Limits, TextTask};
use qstar::tasks::translation::{Files, Translations};
use qstar::tasks::{Prompt, Split, Task};

use crate::cache::model_file;
use crate::chat::fixture;

/// The rewards of the test examples' own demonstrations, and of those of the examples after them.
fn rewards(name: &str, sources: &TextSources, is_chat: bool, count: u64) -> Option<[Vec<f64>; 2]> {
    model_file("openai-community/gpt2", "tokenizer.json")?;
    let vocabulary = Vocabulary::read(&Source::hub("openai-community/gpt2")).unwrap();
    let data = text_data(std::path::Path::new("."), name, sources).unwrap();
    let limits = Limits { prompt_tokens: 1024, response_tokens: 1024 };
    let task = match is_chat {
        false => TextTask::new(data, vocabulary, limits).unwrap(),
        true => TextTask::chat(data, vocabulary, fixture().case("zephyr-gpt").0, limits).unwrap(),
    };
    task.notes().iter().for_each(|note| println!("{name}: {note}"));
    let prompts: Vec<Prompt> = (0..count).map(|i| task.prompt(Split::Test, i)).collect();
    let answers: Vec<Vec<u32>> = prompts.iter().map(|prompt| task.demonstration(prompt, 0).unwrap()).collect();
    let pairs = |shift: usize| -> Vec<(&Prompt, &[u32])> {
        (0..prompts.len()).map(|i| (&prompts[i], &answers[(i + shift) % answers.len()][..])).collect()
    };
    Some([task.rewards(&pairs(0)).unwrap(), task.rewards(&pairs(1)).unwrap()])
}

#[test]
fn a_demonstration_has_the_full_reward() {
    let Some(home) = std::env::var_os("HF_HOME") else {
        println!("skipped: HF_HOME is not set");
        return;
    };
    let file = |name: &str| std::path::PathBuf::from(&home).join("hub/wmt22").join(format!("wmt22.en-de.{name}"));
    let translation = Translations {
        languages: ("English".into(), "German".into()),
        train: None,
        test: Files { source: file("src"), references: vec![file("ref-A")] },
    };
    let sources = TextSources { translation: Some(translation), ..Default::default() };
    let mut names = vec!["summary", "questions", "translation"];
    match Sandbox::new(Default::default()) {
        Ok(_) => names.push("code"),
        Err(error) => println!("skipped: code, for there is no sandbox: {error:#}"),
    }
    for (name, is_chat) in names.into_iter().flat_map(|name| [(name, false), (name, true)]) {
        let Some([own, others]) = rewards(name, &sources, is_chat, 24) else { return };
        let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
        println!("{name} {is_chat}: {:.3}, of others {:.3}", mean(&own), mean(&others));
        assert!(own.iter().all(|reward| *reward > 0.999_999), "{name}: {own:?}");
        assert!(mean(&others) < 0.3, "{name}: {others:?}");
    }
}
