{
    let x: Vec<f32> = (0..60).map(|i| (i as f32 * 0.37).sin()).collect();
    let y: Vec<f32> = (0..20).map(|i| (i as f32 * 0.61).cos()).collect();
    let x = Tensor::from_vec(x, (20, 3), &Device::Cpu)?;
    let y = Tensor::from_vec(y, (20, 1), &Device::Cpu)?;
    let w = Var::zeros((3, 1), DType::F32, &Device::Cpu)?;
    let b = Var::zeros(1, DType::F32, &Device::Cpu)?;
    (x, y, w, b)
}
