{
    let world = MicroWorld::new()?;
    let before = model.params.digest()?;
    let config = Supervised { steps: 5, batch: 8, learning_rate: 1e-3, warmup_steps: 1 };
    let loss = train_supervised(&model, &config, "training", |i| {
        let prompt = world.prompt(Split::Train, i);
        let answer = world.demonstration(&prompt, Quality::Clean, 0);
        (prompt.tokens, answer)
    })?;
    (loss.to_bits(), before, model.params.digest()?)
}
