//! Finds the mutants that no test catches, with all of them in one build: see ci/mutants, which makes the tree and the list.
//!
//! `mutator LIST TREE RESULTS FILE…`: the list is that of cargo-mutants for these files, in JSON; the tree is a copy of the
//! sources, and is changed; the last results of each file are in a file of the directory `RESULTS`, and are replaced.
//!
//! What does not fit into one build with the others, a constant function for instance, is built by itself, as cargo-mutants
//! does it.

mod list;
mod report;
mod schema;
mod tests;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, thread};

use list::{Genre, Mutant};
use tests::{Outcome, Suite};
use tree::Tree;

/// The files that loom models: what else survives there is given to the models.
const MODELLED: [&str; 3] = ["src/slot/lineage.rs", "src/slot/current.rs", "src/slot/readers.rs"];
/// Runs without a mutation among the others, all of which have to pass.
const CONTROLS: usize = 12;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [list, tree, results, files @ ..] = &arguments[..] else { return Err("LIST TREE RESULTS FILE…".into()) };
    let number = |name: &str, default: usize| env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (jobs, timeout) = (number("MUTANTS_JOBS", 3), number("MUTANTS_TIMEOUT", 60));
    let tree = Tree::new(PathBuf::from(tree))?;
    let mut all: Vec<Mutant> = serde_json::from_str(&fs::read_to_string(list)?)?;
    for file in all.iter().map(|mutant| mutant.file.clone()).collect::<BTreeSet<_>>() {
        // cargo-mutants knows only the modules of tests that are for nothing else.
        let source = tree.original(&file)?;
        let tests = schema::tests(source)?;
        all.retain(|mutant| mutant.file != file || !tests.iter().any(|test| test.contains(&mutant.offset(source))));
    }
    // From one on: none is chosen by zero.
    let mutants: BTreeMap<usize, Mutant> = (1..).zip(all).collect();

    let mut outcomes = BTreeMap::new();
    let (together, apart) = fit(&tree, &mutants, &mut outcomes)?;
    println!("{} mutants in one build, {} apart, {} do not build", together.len(), apart.len(), outcomes.len());
    let (suite, reached) = tree.build(false)?.ok_or("the tests do not build")?.in_two_parts(timeout)?;
    let (models, modelled) = tree.build(true)?.ok_or("the models do not build")?.in_two_parts(timeout)?;
    let trial = Trial { suite, reached, models, modelled, timeout };
    outcomes.extend(try_all(&trial, &mutants, &together, jobs)?);

    tree.restore()?;
    for id in apart {
        let mutant = &mutants[&id];
        tree.write(&mutant.file, &mutant.applied_to(tree.original(&mutant.file)?))?;
        let outcome = match tree.build(false)? {
            None => Outcome::Unviable,
            Some(suite) => match suite.run(0, timeout) {
                Outcome::Survived if MODELLED.contains(&&*mutant.file) => {
                    tree.build(true)?.map_or(Outcome::Unviable, |models| models.run(0, timeout))
                }
                outcome => outcome,
            },
        };
        println!("{}: {outcome:?}", mutant.name);
        outcomes.insert(id, outcome);
        tree.restore()?;
    }
    for file in files {
        let of_file = mutants.iter().filter(|(_, mutant)| mutant.file == *file);
        let of_file: Vec<_> = of_file.map(|(id, mutant)| (mutant, &outcomes[id])).collect();
        report::write(Path::new(results), file, tree.original(file)?, &of_file)?;
    }
    Ok(())
}

/// Writes as many mutants into the tree as the compiler takes. Gives those, and those that have to be built apart.
fn fit(
    tree: &Tree,
    mutants: &BTreeMap<usize, Mutant>,
    outcomes: &mut BTreeMap<usize, Outcome>,
) -> Result<(BTreeSet<usize>, Vec<usize>), Box<dyn Error>> {
    let mut dropped = BTreeSet::new();
    loop {
        let mut together = BTreeSet::new();
        let files: BTreeSet<&String> = mutants.values().map(|mutant| &mutant.file).collect();
        for file in files {
            let wanted = mutants.iter().filter(|(id, mutant)| mutant.file == *file && !dropped.contains(*id));
            let wanted: Vec<_> = wanted.map(|(id, mutant)| (*id, mutant)).collect();
            let (text, ids) = schema::write(tree.original(file)?, &wanted)?;
            tree.write(file, &text)?;
            together.extend(ids);
        }
        let refused = tree.check()?;
        if refused.is_empty() {
            // A body that is refused is refused alone, too: all that was added is the value that it returns.
            let (unviable, apart): (Vec<_>, Vec<_>) = mutants
                .keys()
                .filter(|id| !together.contains(id))
                .partition(|id| dropped.contains(*id) && mutants[id].genre == Genre::FnValue);
            outcomes.extend(unviable.into_iter().map(|id| (id, Outcome::Unviable)));
            return Ok((together, apart));
        }
        println!("the compiler refuses {} of {}", refused.len(), together.len());
        dropped.extend(refused);
    }
}

/// The tests, and the mutants that they come to.
struct Trial {
    suite: Suite,
    reached: BTreeSet<usize>,
    models: Suite,
    modelled: BTreeSet<usize>,
    timeout: usize,
}

impl Trial {
    fn run(&self, id: usize, mutant: &Mutant) -> Outcome {
        let mut outcome = Outcome::NotReached;
        if self.reached.contains(&id) {
            outcome = self.suite.run(id, self.timeout);
        }
        let survived = matches!(outcome, Outcome::Survived | Outcome::NotReached);
        if survived && MODELLED.contains(&&*mutant.file) && self.modelled.contains(&id) {
            outcome = self.models.run(id, self.timeout);
        }
        outcome
    }
}

fn try_all(
    trial: &Trial,
    mutants: &BTreeMap<usize, Mutant>,
    ids: &BTreeSet<usize>,
    jobs: usize,
) -> Result<BTreeMap<usize, Outcome>, String> {
    let mut queue: Vec<usize> = ids.iter().copied().collect();
    let apart = queue.len() / CONTROLS + 1;
    (0..CONTROLS).for_each(|control| queue.insert((control * apart).min(queue.len()), 0));
    let (next, outcomes, failed) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(id) = queue.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Some(mutant) = mutants.get(id) {
                        let outcome = trial.run(*id, mutant);
                        println!("{}: {outcome:?}", mutant.name);
                        outcomes.lock().unwrap().insert(*id, outcome);
                    } else {
                        let outcome = trial.suite.run(0, trial.timeout);
                        println!("without a mutation: {outcome:?}");
                        if outcome != Outcome::Survived {
                            failed.lock().unwrap().push(outcome);
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    if !failed.is_empty() {
        return Err(format!("{} of {CONTROLS} runs without a mutation failed: {failed:?}", failed.len()));
    }
    println!("{CONTROLS} of {CONTROLS} runs without a mutation passed");
    Ok(outcomes.into_inner().unwrap())
}
