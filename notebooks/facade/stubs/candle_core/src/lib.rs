//! What rust-analyzer must know of candle. Never run: a signature that is wrong here shows as a compile error in a cell.

pub struct Error(());
pub type Result<T> = std::result::Result<T, Error>;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum DType {
    U8,
    U32,
    I64,
    BF16,
    F16,
    F32,
    F64,
}

#[derive(Clone)]
pub enum Device {
    Cpu,
    Cuda(()),
    Metal(()),
}

impl Device {
    pub fn new_cuda(_: usize) -> Result<Device> {
        loop {}
    }
    pub fn cuda_if_available(_: usize) -> Result<Device> {
        loop {}
    }
}

pub struct Shape(());

impl Shape {
    pub fn dims(&self) -> &[usize] {
        loop {}
    }
    pub fn elem_count(&self) -> usize {
        loop {}
    }
}

#[derive(Clone)]
pub struct Tensor(());

#[derive(Clone)]
pub struct Var(());

impl std::ops::Deref for Var {
    type Target = Tensor;
    fn deref(&self) -> &Tensor {
        loop {}
    }
}

impl Var {
    pub fn from_tensor(_: &Tensor) -> Result<Var> {
        loop {}
    }
    pub fn new<A>(_: A, _: &Device) -> Result<Var> {
        loop {}
    }
    pub fn zeros<S>(_: S, _: DType, _: &Device) -> Result<Var> {
        loop {}
    }
    pub fn as_tensor(&self) -> &Tensor {
        loop {}
    }
    pub fn set(&self, _: &Tensor) -> Result<()> {
        loop {}
    }
}

/// Methods of a tensor that give a tensor.
macro_rules! tensors {
    ($($name:ident($($argument:ty),*)),* $(,)?) => {
        impl Tensor {
            $(pub fn $name(&self $(, _: $argument)*) -> Result<Tensor> { loop {} })*
        }
    };
}

tensors!(
    exp(), log(), sqr(), sqrt(), neg(), tanh(), relu(), abs(), recip(), sin(), cos(), t(), contiguous(), copy(),
    flatten_all(), sum_all(), mean_all(), max_all(), min_all(), affine(f64, f64), powf(f64), to_dtype(DType),
    to_device(&Device), matmul(&Tensor), mul(&Tensor), add(&Tensor), sub(&Tensor), div(&Tensor),
    broadcast_add(&Tensor), broadcast_sub(&Tensor), broadcast_mul(&Tensor), broadcast_div(&Tensor),
    zeros_like(), ones_like(),
);

impl Tensor {
    pub fn new<A>(_: A, _: &Device) -> Result<Tensor> {
        loop {}
    }
    pub fn zeros<S>(_: S, _: DType, _: &Device) -> Result<Tensor> {
        loop {}
    }
    pub fn ones<S>(_: S, _: DType, _: &Device) -> Result<Tensor> {
        loop {}
    }
    pub fn randn<S, T>(_: T, _: T, _: S, _: &Device) -> Result<Tensor> {
        loop {}
    }
    pub fn rand<S, T>(_: T, _: T, _: S, _: &Device) -> Result<Tensor> {
        loop {}
    }
    pub fn arange<D>(_: D, _: D, _: &Device) -> Result<Tensor> {
        loop {}
    }
    pub fn from_vec<S, D>(_: Vec<D>, _: S, _: &Device) -> Result<Tensor> {
        loop {}
    }
    pub fn from_slice<S, D>(_: &[D], _: S, _: &Device) -> Result<Tensor> {
        loop {}
    }
    pub fn reshape<S>(&self, _: S) -> Result<Tensor> {
        loop {}
    }
    pub fn sum<D>(&self, _: D) -> Result<Tensor> {
        loop {}
    }
    pub fn mean<D>(&self, _: D) -> Result<Tensor> {
        loop {}
    }
    pub fn max<D>(&self, _: D) -> Result<Tensor> {
        loop {}
    }
    pub fn argmax<D>(&self, _: D) -> Result<Tensor> {
        loop {}
    }
    pub fn get(&self, _: usize) -> Result<Tensor> {
        loop {}
    }
    pub fn narrow<D>(&self, _: D, _: usize, _: usize) -> Result<Tensor> {
        loop {}
    }
    pub fn squeeze<D>(&self, _: D) -> Result<Tensor> {
        loop {}
    }
    pub fn unsqueeze<D>(&self, _: D) -> Result<Tensor> {
        loop {}
    }
    pub fn transpose<D, E>(&self, _: D, _: E) -> Result<Tensor> {
        loop {}
    }
    pub fn shape(&self) -> &Shape {
        loop {}
    }
    pub fn dims(&self) -> &[usize] {
        loop {}
    }
    pub fn dims1(&self) -> Result<usize> {
        loop {}
    }
    pub fn dims2(&self) -> Result<(usize, usize)> {
        loop {}
    }
    pub fn dims3(&self) -> Result<(usize, usize, usize)> {
        loop {}
    }
    pub fn dim<D>(&self, _: D) -> Result<usize> {
        loop {}
    }
    pub fn dtype(&self) -> DType {
        loop {}
    }
    pub fn device(&self) -> &Device {
        loop {}
    }
    pub fn elem_count(&self) -> usize {
        loop {}
    }
    pub fn rank(&self) -> usize {
        loop {}
    }
    pub fn to_scalar<S>(&self) -> Result<S> {
        loop {}
    }
    pub fn to_vec0<S>(&self) -> Result<S> {
        loop {}
    }
    pub fn to_vec1<S>(&self) -> Result<Vec<S>> {
        loop {}
    }
    pub fn to_vec2<S>(&self) -> Result<Vec<Vec<S>>> {
        loop {}
    }
    pub fn to_vec3<S>(&self) -> Result<Vec<Vec<Vec<S>>>> {
        loop {}
    }
    pub fn detach(&self) -> Tensor {
        loop {}
    }
}

/// The four operations on tensors, references and numbers, each with a `Result` as candle has it.
macro_rules! operators {
    ($($trait:ident $method:ident),*) => {
        $(
            impl std::ops::$trait<Tensor> for Tensor { type Output = Result<Tensor>; fn $method(self, _: Tensor) -> Result<Tensor> { loop {} } }
            impl std::ops::$trait<&Tensor> for Tensor { type Output = Result<Tensor>; fn $method(self, _: &Tensor) -> Result<Tensor> { loop {} } }
            impl std::ops::$trait<Tensor> for &Tensor { type Output = Result<Tensor>; fn $method(self, _: Tensor) -> Result<Tensor> { loop {} } }
            impl std::ops::$trait<&Tensor> for &Tensor { type Output = Result<Tensor>; fn $method(self, _: &Tensor) -> Result<Tensor> { loop {} } }
            impl std::ops::$trait<f64> for Tensor { type Output = Result<Tensor>; fn $method(self, _: f64) -> Result<Tensor> { loop {} } }
            impl std::ops::$trait<f64> for &Tensor { type Output = Result<Tensor>; fn $method(self, _: f64) -> Result<Tensor> { loop {} } }
        )*
    };
}

operators!(Add add, Sub sub, Mul mul, Div div);
