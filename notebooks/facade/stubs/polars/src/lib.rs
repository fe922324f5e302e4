//! What rust-analyzer must know of polars. Never run: a signature that is wrong here shows as a compile error in a cell.

pub mod prelude {
    pub struct PolarsError(());
    pub type PolarsResult<T> = Result<T, PolarsError>;

    pub enum DataType {
        Boolean,
        UInt32,
        UInt64,
        Int32,
        Int64,
        Float32,
        Float64,
        String,
    }

    #[derive(Clone)]
    pub struct DataFrame(());

    impl DataFrame {
        pub fn new(_: usize, _: Vec<Column>) -> PolarsResult<DataFrame> {
            loop {}
        }
        pub fn height(&self) -> usize {
            loop {}
        }
        pub fn width(&self) -> usize {
            loop {}
        }
        pub fn shape(&self) -> (usize, usize) {
            loop {}
        }
        pub fn columns(&self) -> &[Column] {
            loop {}
        }
        pub fn column(&self, _: &str) -> PolarsResult<&Column> {
            loop {}
        }
        pub fn select<I, S>(&self, _: I) -> PolarsResult<DataFrame> {
            loop {}
        }
        pub fn drop(&self, _: &str) -> PolarsResult<DataFrame> {
            loop {}
        }
        pub fn head(&self, _: Option<usize>) -> DataFrame {
            loop {}
        }
        pub fn tail(&self, _: Option<usize>) -> DataFrame {
            loop {}
        }
        pub fn slice(&self, _: i64, _: usize) -> DataFrame {
            loop {}
        }
        pub fn hstack(&self, _: &[Column]) -> PolarsResult<DataFrame> {
            loop {}
        }
        pub fn vstack(&self, _: &DataFrame) -> PolarsResult<DataFrame> {
            loop {}
        }
    }

    #[derive(Clone)]
    pub struct Column(());

    pub struct PlSmallStr(());

    impl From<&str> for PlSmallStr {
        fn from(_: &str) -> Self {
            loop {}
        }
    }

    impl Column {
        pub fn new<T>(_: PlSmallStr, _: T) -> Column {
            loop {}
        }
        pub fn len(&self) -> usize {
            loop {}
        }
        pub fn dtype(&self) -> &DataType {
            loop {}
        }
        pub fn null_count(&self) -> usize {
            loop {}
        }
    }
}
