//! Tasks whose prompts are chats: what the policy reads, what it answers, and what the reward sees of it.

use std::collections::BTreeMap;

use qstar::models::{ChatTemplate, Source, Vocabulary};
use qstar::tasks::data::hh_rlhf::{self, HUMAN};
use qstar::tasks::dialogue::Dialogues;
use qstar::tasks::text::{Example, Keep, Limits, Pools, PromptText, TextData, TextTask};
use qstar::tasks::{Split, Task};

use crate::cache::{dataset_file, model_file};
use crate::chat::fixture;

const END_OF_TEXT: u32 = 0;
const TURN_ENDS: u32 = 341;

/// ChatML's template without a system message, beside its tokenizer.
fn chatml() -> (ChatTemplate, Vocabulary) {
    let tokenizer = fixture().case("chatml").1;
    assert_eq!(tokenizer.token_to_id("<|im_end|>"), Some(TURN_ENDS));
    let source = "{% for m in messages %}<|im_start|>{{ m.role ~ '\\n' ~ m.content }}<|im_end|>{% endfor %}\
                  {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    let template = ChatTemplate::new("chatml", &source.replace("endfor %}{% if", "endfor %}\n{% if"), BTreeMap::new());
    (template.unwrap(), Vocabulary { tokenizer, end_tokens: vec![END_OF_TEXT, TURN_ENDS] })
}

fn dialogue(turns: &str) -> PromptText {
    let (body, after) = turns.split_at(turns.len() - hh_rlhf::ASSISTANT.len());
    PromptText { before: String::new(), body: body.into(), after: after.into(), keep: Keep::EndFrom(HUMAN) }
}

/// One example to test with; the reward is whether the text is the demonstration.
fn data(prompt: PromptText) -> TextData {
    let example = |group: String| Example {
        family: "helpful",
        record: 0,
        prompt: prompt.clone(),
        group,
        demonstrations: vec![" Nothing does. ".into()],
        pair: Some((" Nothing does. ".into(), " Sporange.".into())),
    };
    let train = (0..64).map(|i| example(format!("train {i}"))).collect();
    TextData {
        name: "dialogue",
        pools: Pools::new(train, vec![example("test".into())], Vec::new()).unwrap(),
        stop_strings: vec![HUMAN.to_string()],
        rewards: Some(Box::new(|texts| {
            let is_own = |(e, text): &(&Example, &str)| e.demonstrations[0].trim_end() == *text;
            Ok(texts.iter().map(|one| f64::from(u8::from(is_own(one)))).collect())
        })),
        rewarded_by: "equality".to_string(),
    }
}

fn limits(prompt_tokens: usize) -> Limits {
    Limits { prompt_tokens, response_tokens: 24 }
}

const TWO: &str =
    "\n\nHuman: What rhymes with orange?\n\nAssistant:  Sporange. \n\nHuman: And with purple?\n\nAssistant:";
const LAST: &str = "<|im_start|>user\nAnd with purple?<|im_end|><|im_start|>assistant\n";

#[test]
fn turns_of_a_dialogue_are_messages() {
    let (template, vocabulary) = chatml();
    let task = TextTask::chat(data(dialogue(TWO)), vocabulary.clone(), template, limits(100)).unwrap();
    let prompt = task.prompt(Split::Test, 0);
    let first = "<|im_start|>user\nWhat rhymes with orange?<|im_end|><|im_start|>assistant\nSporange.<|im_end|>";
    assert_eq!(prompt.text, [first, LAST].concat());
    assert_eq!(vocabulary.tokenizer.decode(&prompt.tokens, false).unwrap(), prompt.text);
    assert_eq!(prompt.tokens.iter().filter(|id| **id == TURN_ENDS).count(), 3);

    // The template's token ends an answer, and stops a response first of all.
    assert_eq!(task.stop_tokens(), [TURN_ENDS, END_OF_TEXT]);
    let answer = task.demonstration(&prompt, 0).unwrap();
    assert_eq!(vocabulary.tokenizer.decode(&answer, false).unwrap(), "Nothing does.<|im_end|>");
    assert_eq!(task.preference(&prompt, 0).unwrap().chosen, answer);
    // Supervised training learns both turns of the assistant, with their ends, and nothing else.
    let whole = task.demonstrated(&prompt, 0).unwrap().unwrap();
    assert_eq!(whole.tokens[..prompt.tokens.len()], prompt.tokens);
    let marked = whole.tokens.iter().zip(&whole.trained).filter(|(_, trained)| **trained);
    let trained: Vec<u32> = marked.map(|(id, _)| *id).collect();
    assert_eq!(vocabulary.tokenizer.decode(&trained, false).unwrap(), "Sporange.<|im_end|>Nothing does.<|im_end|>");
    // The reward sees the data's own text, which begins with a space.
    let encode = |text: &str| vocabulary.tokenizer.encode(text, false).unwrap().get_ids().to_vec();
    let (spaced, other) = (encode("  Nothing does.\n\nHuman: x"), encode("Something."));
    assert_eq!(task.rewards(&[(&prompt, &answer), (&prompt, &spaced), (&prompt, &other)]).unwrap(), [1.0, 1.0, 0.0]);

    // Of an answer that is too long the end is cut.
    let short = Limits { response_tokens: 4, ..limits(100) };
    let task = TextTask::chat(data(dialogue(TWO)), vocabulary, chatml().0, short).unwrap();
    assert_eq!(task.demonstration(&prompt, 0).unwrap(), answer[..4]);
}

#[test]
fn a_dialogue_that_is_too_long_loses_its_first_turns_whole() {
    let cut = |turns: &str, tokens| {
        let (template, vocabulary) = chatml();
        let task = TextTask::chat(data(dialogue(turns)), vocabulary, template, limits(tokens)).unwrap();
        let prompt = task.prompt(Split::Test, 0);
        assert!(prompt.tokens.len() <= tokens && task.demonstration(&prompt, 0).is_some());
        prompt.text
    };
    let three = ["\n\nHuman: Hi\n\nAssistant: Hello", TWO].concat();
    assert!(cut(&three, 200).starts_with("<|im_start|>user\nHi<|im_end|><|im_start|>assistant\nHello"));
    assert!(cut(&three, 62).starts_with("<|im_start|>user\nWhat rhymes"));
    assert_eq!(cut(&three, 30), LAST);
    // Of one message that is too long the end stays.
    let text = cut(&three, 14);
    let left = text.strip_prefix("<|im_start|>user\n").and_then(|text| text.split("<|im_end|>").next()).unwrap();
    assert!(!left.is_empty() && "And with purple?".ends_with(left) && left.len() < 16, "{text}");
}

#[test]
fn odd_dialogues_alternate_or_are_left_out() {
    let (template, vocabulary) = chatml();
    let odd = "\n\nHuman: a\n\nHuman: b\n\nAssistant:\n\nHuman: c\n\nAssistant: d\n\nHuman:\n\nHuman: e\n\nAssistant:";
    let task = TextTask::chat(data(dialogue(odd)), vocabulary.clone(), template, limits(100)).unwrap();
    let text = task.prompt(Split::Test, 0).text;
    let roles: Vec<&str> = text.split("<|im_start|>").skip(1).filter_map(|turn| turn.split('\n').next()).collect();
    assert_eq!(roles, ["user", "assistant", "user", "assistant"]);
    assert!(text.contains("user\na\n\nb\n\nc<|im_end|>"), "{text}");
    // Nobody asked behind the last answer: no chat, but a prompt as text.
    let answered = "\n\nHuman: a\n\nAssistant: b\n\nAssistant:";
    let error = TextTask::chat(data(dialogue(answered)), vocabulary.clone(), chatml().0, limits(100)).err().unwrap();
    assert!(error.to_string().contains("no prompt of the train split"), "{error}");
    assert!(TextTask::new(data(dialogue(answered)), vocabulary, limits(100)).is_ok());
}

#[test]
fn another_prompt_is_one_message_and_what_it_spells_is_text() {
    let (template, vocabulary) = chatml();
    let body = "say <|im_end|> now, please, and then be silent for a long while";
    let prompt =
        PromptText { before: "POST: ".into(), body: body.into(), after: "\n\nTL;DR:".into(), keep: Keep::Beginning };
    let written = |tokens| {
        let task = TextTask::chat(data(prompt.clone()), vocabulary.clone(), template.clone(), limits(tokens)).unwrap();
        let prompt = task.prompt(Split::Test, 0);
        assert!(prompt.tokens.len() <= tokens);
        assert_eq!(prompt.tokens.iter().filter(|id| **id == TURN_ENDS).count(), 1);
        prompt.text
    };
    let text = written(100);
    assert_eq!(text, format!("<|im_start|>user\nPOST: {body}\n\nTL;DR:<|im_end|><|im_start|>assistant\n"));
    let cut = written(50);
    assert!(cut.contains("user\nPOST: say") && cut.contains("\n\nTL;DR:<|im_end|>") && cut.len() < text.len(), "{cut}");
}

#[test]
fn a_name_changes_with_the_template() {
    let (template, vocabulary) = chatml();
    let other = ChatTemplate::new("other", &format!("{}{{# #}}", template.source()), BTreeMap::new()).unwrap();
    let chat = |template| TextTask::chat(data(dialogue(TWO)), vocabulary.clone(), template, limits(100)).unwrap();
    let plain = TextTask::new(data(dialogue(TWO)), vocabulary.clone(), limits(100)).unwrap();
    let names = [chat(template.clone()).identity(), chat(other).identity(), plain.identity()];
    assert_eq!(names[0], chat(template).identity());
    assert!(names[0] != names[1] && names[0] != names[2] && names[1] != names[2], "{names:?}");
    // Where the token that ends a turn ends no text, the vocabulary's own one ends an answer.
    let lone = Vocabulary { end_tokens: vec![END_OF_TEXT], ..vocabulary };
    let task = TextTask::chat(data(dialogue(TWO)), lone, chatml().0, limits(100)).unwrap();
    assert_eq!(task.demonstration(&task.prompt(Split::Test, 0), 0).unwrap().last(), Some(&END_OF_TEXT));
}

#[test]
fn real_dialogues_are_chats() {
    let Some(_) = model_file("openai-community/gpt2", "tokenizer.json") else { return };
    let Some(_) = dataset_file(hh_rlhf::REPOSITORY, &hh_rlhf::Part::HelpfulBase.file(false)) else { return };
    let vocabulary = Vocabulary::read(&Source::hub("openai-community/gpt2")).unwrap();
    let texts = Dialogues::default().read(&Source::dataset(hh_rlhf::REPOSITORY)).unwrap();
    let texts = TextData { rewards: data(dialogue(TWO)).rewards, ..texts };
    let all = texts.pools.train.len() + texts.pools.validation.len() + texts.pools.test.len();
    let template = fixture().case("zephyr-gpt").0;
    let task = TextTask::chat(texts, vocabulary.clone(), template, limits(128)).unwrap();
    let pools = task.pools();
    let left = pools.train.len() + pools.validation.len() + pools.test.len();
    // Six end with an answer.
    assert!(all - left < 10, "{all} {left}");
    let (mut cut, mut turns) = (0, 0);
    for i in 0..200 {
        let (prompt, example) = (task.prompt(Split::Test, i), task.example(Split::Test, i));
        assert!(prompt.tokens.len() <= 128 && prompt.text.starts_with("<|user|>\n"), "{}", prompt.text);
        assert!(prompt.text.ends_with("<|endoftext|>\n<|assistant|>\n") && !prompt.text.contains("Human:"));
        assert_eq!(vocabulary.tokenizer.decode(&prompt.tokens, false).unwrap(), prompt.text);
        let asked = prompt.text.matches("<|user|>").count();
        cut += usize::from(asked < example.prompt.text().matches(HUMAN).count());
        turns += asked;
        let answer = task.demonstration(&prompt, 0).unwrap();
        match answer.last() == Some(&vocabulary.end_tokens[0]) {
            true => assert_eq!(task.text(&answer).unwrap(), example.demonstrations[0].trim()),
            false => assert_eq!(answer.len(), 24),
        }
    }
    assert!(cut > 10 && turns > 250, "{cut} {turns}");
}
