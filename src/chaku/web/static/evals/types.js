/** The shapes of a run as `/api/evals/RUN` and a report hold it. Nothing runs here. */

/**
 * @typedef {{value: number, low: number | null, high: number | null, num: number}} Estimate
 * @typedef {{metric: string, unit: string, most: number, models: {model: string, all: Estimate, categories: Record<string, Estimate>}[]}} Scores
 * @typedef {{model: string, percent: number, low: number, high: number, through: string[]}} Quality
 * @typedef {{model_a: string, model_b: string, total_a: number | null, total_b: number | null, wins_a: number, ties: number, wins_b: number, difference: number | null, low: number | null, high: number | null}} Pair
 * @typedef {{count: number, num: number, value: number | null, low: number, high: number}} Share
 * @typedef {{key: string, mode: string, judge: string, models: string[], turn: number, state: string, error: string | null, outcome: "a" | "b" | "tie" | null, scores: number[], text: string, deciding: [number, number] | null}} Judgement
 * @typedef {{id: string, category: string, turns: string[], reference: string[], answers: Record<string, {turns: string[], error: string | null}>, judgements: Judgement[], flipped: string[][], differs: string[][]}} Question
 */

/**
 * @typedef {object} EvalRun
 * @property {string} name
 * @property {string} suite
 * @property {string} created
 * @property {string[]} models
 * @property {string | null} judge
 * @property {string | null} mode
 * @property {[number, number]} answers  how many there are, and how many there will be
 * @property {[number, number]} judgements
 * @property {boolean} is_done
 * @property {string | null} against
 * @property {Scores[]} scores
 * @property {Quality[]} quality
 * @property {Pair[]} pairs
 * @property {{names: string[], values: (number | null)[][]}} matrix
 * @property {{unread: Share, flips: Share, first: Share, first_p: number} | null} health
 * @property {{name: string, what: string, num: number, prompt_tokens: number, completion_tokens: number, dollars: number | null, seconds: number}[]} cost
 * @property {Question[]} questions
 */

export {};
