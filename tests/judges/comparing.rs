//! Rules, reward models, rows.

use qstar::judge::{
    Answer, Judge, Judgment, JudgmentRow, Outcome, Pair, Question, RewardJudge, Rule, Verdict, judge_pairs,
    judgment_rows, judgments_of_rows, read_judgments, read_pairs, win_rate, write_judgments,
};
use qstar::models::{Config, DistilBertConfig, RewardModel, Vocabulary};
use qstar::progress::Progress;
use qstar::reward::TextReward;

fn pair(id: &str, a: &str, b: &str, reference: Option<&str>) -> Pair {
    Pair { id: id.into(), prompt: "p".into(), a: a.into(), b: b.into(), reference: reference.map(str::to_owned) }
}

fn outcomes(judge: &dyn Judge, pairs: &[Pair]) -> Vec<Outcome> {
    let progress = Progress::new("judging", 0);
    judge_pairs(judge, pairs, &progress).unwrap().iter().map(Judgment::outcome).collect()
}

#[test]
fn rules() {
    use Outcome::{A, B, Inconsistent, Tie};
    let pairs = [
        pair("1", "long", "x", Some("x")),
        pair("2", "é", "ab", Some(" é\n")),
        pair("3", "ab", "cd", Some("z")),
        pair("4", "same", "same", Some("z")),
    ];
    assert_eq!(outcomes(&Rule::longer(), &pairs), [A, B, Tie, Tie]);
    assert_eq!(outcomes(&Rule::shorter(), &pairs), [B, A, Tie, Tie]);
    assert_eq!(outcomes(&Rule::reference(), &pairs), [B, A, Tie, Tie]);
    let first = Rule::new("first", |_: &Question| Ok(Verdict::A));
    assert_eq!(outcomes(&first, &pairs), [Inconsistent, Inconsistent, Inconsistent, Tie]);
    let error = judge_pairs(&Rule::reference(), &[pair("1", "a", "b", None)], &Progress::new("judging", 0));
    assert!(format!("{:#}", error.unwrap_err()).contains("no reference"));
    let error =
        judge_pairs(&first, &[pair("1", "a", "b", None), pair("1", "c", "d", None)], &Progress::new("judging", 0));
    assert!(format!("{:#}", error.unwrap_err()).contains("two pairs"));
}

#[test]
fn every_two_verdicts_have_one_outcome() {
    use Verdict::{A, B, Tie, Unjudged, Unreadable};
    let all = [A, B, Tie, Unreadable, Unjudged];
    for ab in all {
        for ba in all {
            let judgment = Judgment { id: "1".into(), ab: ab.into(), ba: ba.into() };
            let expected = match (ab, ba) {
                (A, A) => Outcome::A,
                (B, B) => Outcome::B,
                (Tie, Tie) => Outcome::Tie,
                _ if ab == Unjudged || ba == Unjudged => Outcome::Unjudged,
                _ if ab == Unreadable || ba == Unreadable => Outcome::Unreadable,
                _ => Outcome::Inconsistent,
            };
            assert_eq!(judgment.outcome(), expected);
        }
        assert_eq!(ab.swapped().swapped(), ab);
    }
}

#[test]
fn rewards_are_compared_with_a_threshold() {
    use Outcome::{A, B, Tie};
    let pairs = [pair("1", "aaa", "b", None), pair("2", "a", "bb", None), pair("3", "a", "bbb", None)];
    let length = |texts: &[(&str, &str)]| Ok(texts.iter().map(|(_, response)| response.len() as f64).collect());
    assert_eq!(outcomes(&RewardJudge::new("length", 0.0, length).unwrap(), &pairs), [A, B, B]);
    assert_eq!(outcomes(&RewardJudge::new("length", 1.0, length).unwrap(), &pairs), [A, Tie, B]);
    assert!(RewardJudge::new("length", f64::NAN, length).is_err());
    let failed =
        |judge: RewardJudge| format!("{:#}", judge_pairs(&judge, &pairs, &Progress::new("judging", 0)).unwrap_err());
    let nan = RewardJudge::new("nan", 0.0, |texts| Ok(vec![f64::NAN; texts.len()])).unwrap();
    assert!(failed(nan).contains("reward NaN"));
    assert!(failed(RewardJudge::new("few", 0.0, |_| Ok(vec![1.0])).unwrap()).contains("1 rewards for"));
}

/// A reward model's verdicts are those of its scores, each response scored once with its prompt.
#[test]
fn a_reward_model_judges_by_its_scores() {
    let config = DistilBertConfig {
        vocab_size: 16,
        max_position_embeddings: 12,
        dim: 16,
        n_layers: 1,
        n_heads: 2,
        hidden_dim: 32,
        ..Default::default()
    };
    let model = || RewardModel::new(Config::DistilBert(config.clone()), 5).unwrap();
    let vocabulary: Vec<(String, u32)> = ["[UNK]", "[CLS]", "[SEP]", "p", "a", "b", "c", "d", "e", "f"]
        .iter()
        .zip(0u32..)
        .map(|(word, id)| (word.to_string(), id))
        .collect();
    let description = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null, "decoder": null,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]},
        "model": {"type": "WordLevel", "unk_token": "[UNK]", "vocab": vocabulary.into_iter().collect::<std::collections::HashMap<_, _>>()},
    });
    let tokenizer = tokenizers::Tokenizer::from_bytes(description.to_string()).unwrap();
    let reward = TextReward::new(model(), Vocabulary { tokenizer, end_tokens: Vec::new() }).unwrap();
    let judge = RewardJudge::of_model("reward", 0.0, reward).unwrap();
    let pairs = [pair("1", " a b", " c", None), pair("2", " d e f", " a b", None), pair("3", " f", " e e", None)];
    // [CLS] p response [SEP], by hand.
    let ids = |response: &[u32]| [&[1, 3][..], response, &[2]].concat();
    let scores = model().scores(&[ids(&[4, 5]), ids(&[6]), ids(&[7, 8, 9]), ids(&[9]), ids(&[8, 8])]).unwrap();
    assert_eq!(judge.scores(&[("p", " a b"), ("p", " c")]).unwrap(), scores[..2]);
    let expected = [(0, 1), (2, 0), (3, 4)].map(|(a, b)| if scores[a] > scores[b] { Outcome::A } else { Outcome::B });
    assert_eq!(outcomes(&judge, &pairs), expected);
    // Longer than the model: the end is kept.
    let long = "a ".repeat(40);
    assert!(judge.scores(&[("p", &long)]).unwrap()[0].is_finite());
}

#[test]
fn judgments_survive_their_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("judgments.jsonl");
    let unreadable = Answer { verdict: Verdict::Unreadable, note: Some("\"rubbish\"\n".into()) };
    let judgments = vec![
        Judgment { id: "ä\"1".into(), ab: Verdict::A.into(), ba: unreadable },
        Judgment { id: "2".into(), ab: Verdict::Tie.into(), ba: Verdict::Unjudged.into() },
    ];
    let rows = [judgment_rows("x", &judgments), judgment_rows("y", &judgments[..1])].concat();
    write_judgments(&path, &rows).unwrap();
    assert_eq!(read_judgments(&path).unwrap(), rows);
    let judges = judgments_of_rows(&rows).unwrap();
    assert_eq!(judges, [("x".to_string(), judgments.clone()), ("y".to_string(), judgments[..1].to_vec())]);
    assert_eq!(JudgmentRow::frame(&rows).unwrap().shape(), (6, 5));

    let refused = |rows: Vec<JudgmentRow>| format!("{:#}", judgments_of_rows(&rows).unwrap_err());
    assert!(refused(rows[..1].to_vec()).contains("BA is missing"));
    assert!(refused([&rows[..], &rows[..1]].concat()).contains("twice"));
    assert!(refused(vec![JudgmentRow { verdict: "maybe".into(), ..rows[0].clone() }]).contains("maybe"));
    assert!(refused(vec![JudgmentRow { order: "A".into(), ..rows[0].clone() }]).contains("AB or BA"));
    assert!(win_rate("x", &[], 0.95).is_err());
}

#[test]
fn pairs_are_joined_by_id_and_errors_name_the_line() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a.jsonl"), folder.path().join("b.jsonl"));
    let read = |first: &str, second: &str| {
        std::fs::write(&a, first).unwrap();
        std::fs::write(&b, second).unwrap();
        read_pairs(&a, &b)
    };
    let line = |id: &str, prompt: &str, response: &str| {
        format!("{{\"id\": {id}, \"prompt\": {prompt:?}, \"response\": {response:?}}}\n")
    };
    let two = line("1", "p", "x") + "\n" + &line("\"b\"", "q", "y");
    let pairs = read(&two, &(line("\"b\"", "q", "Y") + &line("1", "p", "X"))).unwrap();
    assert_eq!((pairs[0].id.as_str(), pairs[0].a.as_str(), pairs[0].b.as_str()), ("1", "x", "X"));
    assert_eq!((pairs[1].id.as_str(), pairs[1].a.as_str(), pairs[1].b.as_str()), ("b", "y", "Y"));
    let refused = |first: &str, second: &str| format!("{:#}", read(first, second).unwrap_err());
    for (first, second, said) in [
        (two.clone(), line("1", "p", "X"), "a.jsonl, line 3: the id \"b\" is not in"),
        (line("1", "p", "x"), two.clone(), "b.jsonl, line 3: the id \"b\" is not in"),
        (two.clone() + &line("1", "p", "x"), two.clone(), "a.jsonl, line 4: the id \"1\" stands on line 1"),
        (two.clone(), two.clone() + &line("1", "p", "x"), "b.jsonl, line 4: the id \"1\" stands on line 1"),
        (line("1", "p", "x"), line("1", "P", "x"), "two prompts"),
        (line("1", "p", "x") + "{\"id\": 2}", two.clone(), "a.jsonl, line 2: missing field `prompt`"),
        (line("1.5", "p", "x"), two.clone(), "whole number"),
        ("oops".into(), two.clone(), "a.jsonl, line 1"),
        (String::new(), String::new(), "there are no responses"),
    ] {
        assert!(refused(&first, &second).contains(said), "{}", refused(&first, &second));
    }
}
