//! A generator: walks a tree recursively and yields each value from wherever the recursion stands.
//!
//! `cargo run --release --example generator`

use switchback::{Coroutine, Resumed, Yielder, stack};

struct Tree {
    value: u32,
    children: Vec<Tree>,
}

fn tree(value: u32, depth: u32) -> Tree {
    let children = if depth == 0 { 0..0 } else { 1..4 };
    Tree { value, children: children.map(|n| tree(value * 10 + n, depth - 1)).collect() }
}

/// Plain recursion; `suspend` works at any depth.
fn walk(tree: &Tree, yielder: &Yielder<(), u32>) {
    yielder.suspend(tree.value);
    for child in &tree.children {
        walk(child, yielder);
    }
}

fn main() -> Result<(), stack::Error> {
    let tree = tree(1, 3);
    let mut values = Coroutine::new(move |yielder: &Yielder<(), u32>, ()| walk(&tree, yielder))?;
    let mut count = 0;
    while let Resumed::Yielded(value) = values.resume(()) {
        print!("{value} ");
        count += 1;
    }
    println!("\n{count} values");
    Ok(())
}
