//! Prompts, limits and splits of a task of real texts.

use std::collections::HashSet;

use qstar::models::{Source, Vocabulary};
use qstar::tasks::data::hh_rlhf;
use qstar::tasks::data::hh_rlhf::HUMAN;
use qstar::tasks::dialogue::Dialogues;
use qstar::tasks::text::{Example, Keep, Limits, Pools, PromptText, TextData, TextTask};
use qstar::tasks::{Split, Task};

use crate::cache::{dataset_file, model_file};

/// GPT-2's vocabulary, whose configuration in the cache names the end token.
fn gpt2() -> Option<Vocabulary> {
    model_file("openai-community/gpt2", "tokenizer.json")?;
    Some(Vocabulary::read(&Source::hub("openai-community/gpt2")).unwrap())
}

fn data(pools: Pools) -> TextData {
    TextData {
        name: "dialogue",
        pools,
        stop_strings: vec![HUMAN.to_string()],
        // The share of the answer's letters that are an e: any function of the text.
        rewards: Some(Box::new(|texts| {
            let share = |text: &str| text.matches('e').count() as f64 / text.len().max(1) as f64;
            Ok(texts.iter().map(|(_, text)| share(text)).collect())
        })),
        rewarded_by: "letters".to_string(),
    }
}

fn dialogues() -> Option<Pools> {
    dataset_file(hh_rlhf::REPOSITORY, &hh_rlhf::Part::HelpfulBase.file(false))?;
    Some(Dialogues::default().read(&Source::dataset(hh_rlhf::REPOSITORY)).unwrap().pools)
}

#[test]
fn pools_share_no_first_turn_and_lose_no_record() {
    let Some(pools) = dialogues() else { return };
    let groups = |examples: &[Example]| -> HashSet<String> { examples.iter().map(|e| e.group.clone()).collect() };
    let [train, validation, test] = [&pools.train, &pools.validation, &pools.test].map(|pool| groups(pool));
    assert!(train.is_disjoint(&test) && train.is_disjoint(&validation) && test.is_disjoint(&validation));
    let all = pools.train.len() + pools.validation.len() + pools.test.len();
    // 4,666 records less 14 that differ before the last answer and those with an empty answer.
    let notes = pools.notes.join("\n");
    assert!(notes.contains("there is no training file") || pools.train.len() > 4_666, "{notes}");
    let shares = [pools.validation.len(), pools.test.len()].map(|n| n as f64 / all as f64);
    if notes.contains("there is no training file") {
        assert!((4_640..4_652).contains(&all), "{all}\n{notes}");
        assert!((shares[0] - 1.0 / 16.0).abs() < 0.015 && (shares[1] - 2.0 / 16.0).abs() < 0.02, "{shares:?}");
        assert!(notes.contains("in 2 records chosen equals rejected"), "{notes}");
    }
}

#[test]
fn prompts_fit_and_keep_the_marker() {
    let (Some(vocabulary), Some(pools)) = (gpt2(), dialogues()) else { return };
    let limits = Limits { prompt_tokens: 64, response_tokens: 24 };
    let task = TextTask::new(data(pools), vocabulary.clone(), limits).unwrap();
    let (mut cut, mut seen) = (0, HashSet::new());
    for i in 0..200 {
        let (prompt, example) = (task.prompt(Split::Test, i), task.example(Split::Test, i));
        assert!(prompt.tokens.len() <= 64 && prompt.text.ends_with("\n\nAssistant:"));
        assert_eq!(vocabulary.tokenizer.decode(&prompt.tokens, false).unwrap(), prompt.text);
        let whole = example.prompt.text();
        assert!(whole.ends_with(&prompt.text));
        cut += usize::from(whole != prompt.text);
        // A whole turn is left where one fits.
        let turns = prompt.text.matches("\n\nHuman:").count();
        assert!(turns == 0 || prompt.text.starts_with("\n\nHuman:"), "{:?}", prompt.text);
        seen.insert((example.family, example.record));

        let answer = task.demonstration(&prompt, 0).unwrap();
        assert!(answer.len() <= 24 && task.demonstration(&prompt, 1).is_none());
        let text = task.text(&answer).unwrap();
        assert!(
            example.demonstrations[0].starts_with(text.trim_end_matches('\u{FFFD}')),
            "{text:?} {:?}",
            example.demonstrations[0]
        );
        // Cut or whole: one without an end token has as many tokens as it may have.
        let ended = answer.last() == Some(&50256);
        assert!(if ended { text == example.demonstrations[0] } else { answer.len() == 24 }, "{text:?}");
        let pair = task.preference(&prompt, 0);
        assert_eq!(pair.is_some(), example.pair.is_some());
        assert!(task.preference(&prompt, 1).is_none());
    }
    assert_eq!(seen.len(), 200, "the first test prompts are 200 different ones");
    assert!(cut > 50, "{cut}");
}

#[test]
fn a_round_of_training_prompts_is_every_example_once() {
    let (Some(vocabulary), Some(pools)) = (gpt2(), dialogues()) else { return };
    let task = TextTask::new(data(pools), vocabulary, Limits { prompt_tokens: 64, response_tokens: 24 }).unwrap();
    let n = task.pools().train.len() as u64;
    let round = |first: u64| -> Vec<(&str, usize)> {
        (first..first + n)
            .map(|i| (task.example(Split::Train, i).family, task.example(Split::Train, i).record))
            .collect()
    };
    let (one, two) = (round(0), round(5 * n));
    assert_eq!(one.iter().collect::<HashSet<_>>().len(), n as usize);
    assert_eq!(one.iter().collect::<HashSet<_>>(), two.iter().collect::<HashSet<_>>());
    assert_ne!(one, two);
}

#[test]
fn a_reward_sees_the_text_up_to_its_end() {
    let (Some(vocabulary), Some(pools)) = (gpt2(), dialogues()) else { return };
    let encode = |text: &str| vocabulary.tokenizer.encode(text, false).unwrap().get_ids().to_vec();
    let task =
        TextTask::new(data(pools), vocabulary.clone(), Limits { prompt_tokens: 64, response_tokens: 24 }).unwrap();
    let prompt = task.prompt(Split::Test, 0);
    let plain = encode(" Yes sir.");
    let ended = [&plain[..], &[50256], &encode(" eeee")[..]].concat();
    let turned = encode(" Yes sir.\n\nHuman: eeee");
    let rewards = task.rewards(&[(&prompt, &plain), (&prompt, &ended), (&prompt, &turned), (&prompt, &[])]).unwrap();
    assert_eq!(rewards, [1.0 / 9.0, 1.0 / 9.0, 1.0 / 9.0, 0.0]);
}

#[test]
fn a_body_is_cut_at_characters_and_the_rest_stays() {
    let Some(vocabulary) = gpt2() else { return };
    let text = |keep| PromptText {
        before: "POST: ".into(),
        body: "日本語の文章はトークンが文字の一部になる。".repeat(5),
        after: "\n\nTL;DR:".into(),
        keep,
    };
    let example = |keep, group: &str| Example {
        family: "summary",
        record: 0,
        prompt: text(keep),
        group: group.into(),
        demonstrations: vec![" x".into()],
        pair: None,
    };
    for keep in [Keep::Beginning, Keep::EndFrom("文字")] {
        let train: Vec<Example> = (0..64).map(|i| example(keep, &format!("train {i}"))).collect();
        let test = vec![example(keep, "test")];
        let pools = Pools::new(train, test, Vec::new()).unwrap();
        for limit in [20, 31, 64] {
            let limits = Limits { prompt_tokens: limit, response_tokens: 8 };
            let task = TextTask::new(data(clone(&pools)), vocabulary.clone(), limits).unwrap();
            let prompt = task.prompt(Split::Test, 0);
            assert!(prompt.tokens.len() <= limit, "{}", prompt.tokens.len());
            let body = prompt.text.strip_prefix("POST: ").unwrap().strip_suffix("\n\nTL;DR:").unwrap();
            match keep {
                Keep::Beginning => assert!(text(keep).body.starts_with(body)),
                Keep::EndFrom(_) => assert!(text(keep).body.ends_with(body)),
            }
            assert!(limit < 64 || body.len() > 30, "{body}");
        }
        let limits = Limits { prompt_tokens: 5, response_tokens: 8 };
        let error = TextTask::new(data(clone(&pools)), vocabulary.clone(), limits).err().unwrap().to_string();
        assert!(error.contains("no prompt of the train split fits"), "{error}");
    }
}

fn clone(pools: &Pools) -> Pools {
    Pools {
        train: pools.train.clone(),
        validation: pools.validation.clone(),
        test: pools.test.clone(),
        notes: Vec::new(),
    }
}

#[test]
fn a_name_changes_with_whatever_decides_a_run() {
    let (Some(vocabulary), Some(pools)) = (gpt2(), dialogues()) else { return };
    let limits = Limits { prompt_tokens: 64, response_tokens: 24 };
    let identity = |data, limits| TextTask::new(data, vocabulary.clone(), limits).unwrap().identity();
    let first = identity(data(clone(&pools)), limits);
    assert_eq!(first, identity(data(clone(&pools)), limits));
    let mut fewer = clone(&pools);
    fewer.train.pop();
    let other_reward = TextData { rewarded_by: "another".into(), ..data(clone(&pools)) };
    let others = [
        identity(data(fewer), limits),
        identity(other_reward, limits),
        identity(data(pools), Limits { response_tokens: 25, ..limits }),
    ];
    assert!(others.iter().all(|other| *other != first));
}
