{
    let mut bits: Vec<u32> = Vec::new();
    for _ in 0..50 {
        let error = x.matmul(&w)?.broadcast_add(&b)?.sub(&y)?;
        let loss = error.sqr()?.mean_all()?;
        let gradients = loss.backward()?;
        for variable in [&w, &b] {
            let gradient = gradients.get(variable).expect("every variable has a gradient");
            variable.set(&(variable.as_tensor() - (gradient * 0.1)?)?)?;
        }
        bits.push(loss.to_scalar::<f32>()?.to_bits());
    }
    bits
}
