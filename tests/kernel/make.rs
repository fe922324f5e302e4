{
    let config = Gpt2Config { vocab_size: 155, n_positions: 38, n_embd: 32, n_layer: 2, n_head: 2, ..Default::default() };
    LanguageModel::new(Config::Gpt2(config), 7)?
}
