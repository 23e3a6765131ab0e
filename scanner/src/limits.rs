//! What a scan may cost. Every text is hostile, so each of these is reached one day by someone who wants it reached.

/// Bytes of one file. A longer script is not read at all: it is a finding of its own (`LIM-001`).
pub const FILE_BYTES: usize = 1 << 20;

/// Bytes that the steps of one manifest put into files, counted at each step that names them. A payload fits twice.
pub const INSTALLED_BYTES: usize = 32 << 20;

/// Bytes of a text that the grammar reads; its tokens and tree take a hundred times as much. A longer one is read by
/// the lexer.
pub const GRAMMAR_BYTES: usize = 256 << 10;

/// Openers of anything that nests, in one text handed to the recursive parser. The parser's stack is sized for all
/// of them being open at once, so no text can overflow it; above this the lexer reads the text instead.
pub const GRAMMAR_OPENERS: usize = 4_000;

/// Openers up to which the parser runs on the caller's own stack.
pub const GRAMMAR_OPENERS_INLINE: usize = 24;

/// Stack for one opener, measured on an unoptimised build and doubled.
pub const GRAMMAR_STACK_PER_OPENER: usize = 24 << 10;

/// Token visits that the backtracking parser may need in its worst case.
pub const GRAMMAR_VISITS: u64 = 4_000_000;

/// Bytes × openers: the tokenizer copies a nested text once for each level.
pub const GRAMMAR_COPIES: usize = 1 << 29;

/// Here-documents of one text handed to the tokenizer.
pub const HEREDOCS: usize = 1_000;

/// Bytes looked at to find the end of a here-document's delimiter.
pub const HEREDOC_TAG: usize = 64 << 10;

/// Bytes of a delimiter × lines of its text: the tokenizer reads the one anew at each of the other.
pub const HEREDOC_COPIES: usize = 1 << 24;

/// Levels of compound commands in a tree.
pub const TREE_DEPTH: usize = 48;

/// Texts inside texts: a substitution in a `sh -c` in a decoded blob, and so on.
pub const NESTED_TEXTS: usize = 8;

/// Calls of functions inside functions.
pub const CALL_DEPTH: usize = 16;

/// Commands evaluated in one file, all variants and calls counted.
pub const COMMANDS: usize = 20_000;

/// Bytes that expansion may produce for one file.
pub const EXPANDED_BYTES: usize = 8 << 20;

/// Bytes of the different texts that are parsed for one file: their trees are kept and take a hundred times as much.
pub const PARSED_BYTES: usize = 2 << 20;

/// Bytes of one expanded word, of one variable and of one command's known output.
pub const WORD_BYTES: usize = FILE_BYTES;

/// Values remembered for one variable that is assigned in several branches.
pub const VALUES: usize = 4;

/// Values of a loop's variable that its commands are looked at for.
pub const LOOP_VALUES: usize = 16;

/// Actions of one file.
pub const ACTIONS: usize = 60_000;

/// Bytes of the texts and words of all files of a recipe together, those of actions and those that expansion produced.
/// The file that exceeds it is the last one that is followed.
pub const RECIPE_BYTES: usize = 128 << 20;

/// Bytes of all texts and words in the actions of one file. Every rule looks at each of them.
pub const ACTION_BYTES: usize = 32 << 20;

/// Findings of one file. More say nothing new.
pub const FINDINGS: usize = 200;

/// Characters of an object named in a message.
pub const SHOWN: usize = 60;

/// Bytes looked at to tell what a file is.
pub const SNIFFED: usize = 4 << 10;
