/**
 * The shapes that travel between the page and its server, as JSDoc types. Nothing runs here.
 *
 * @typedef {{type: "text", text: string} | {type: "image_url", image_url: {url: string}}} Part
 * @typedef {{message: string, type?: string, code?: string, param?: string | null, fix?: string}} Problem
 * @typedef {{prompt_tokens?: number, completion_tokens?: number, cached_tokens?: number}} Usage
 * @typedef {{first_token_s?: number | null, duration_s?: number | null, tokens_per_s?: number | null}} Timings
 * @typedef {"complete" | "streaming" | "stopped" | "failed"} MessageState
 * @typedef {Record<string, number | string[]>} Settings  only what was set: the rest is the model's default
 *
 * @typedef {object} Message
 * @property {string} id
 * @property {string | null} parent_id
 * @property {"user" | "assistant" | "system" | "tool"} role
 * @property {string | Part[]} content
 * @property {Record<string, any> | null} [extra]  OpenAI's other fields: tool_calls, tool_call_id, name
 * @property {string | null} [reasoning]
 * @property {string | null} [model]
 * @property {Settings} [settings]
 * @property {MessageState} state
 * @property {string | null} [finish_reason]
 * @property {Usage | null} [usage]
 * @property {Timings | null} [timings]
 * @property {Problem | null} [error]
 * @property {Feedback | null} [feedback]  the reader's own thumb
 * @property {string} created_at
 *
 * @typedef {{value: "up" | "down", reasons: string[], consent: boolean}} Feedback
 *
 * @typedef {object} Chat
 * @property {string} id
 * @property {string} title
 * @property {boolean} pinned
 * @property {string | null} model
 * @property {string | null} [system]
 * @property {Settings} [settings]
 * @property {string | null} [leaf_id]
 * @property {string} [message_id]  of the message that a search found
 * @property {string} [snippet]  what it says there
 * @property {string} created_at
 * @property {string} updated_at
 * @property {Message[]} [messages]
 *
 * @typedef {object} Model
 * @property {string} id
 * @property {string} state
 * @property {string} [detail]
 * @property {number | null} [progress]  0 to 1 while loading
 * @property {number | null} [context_tokens]
 * @property {number} [slots]
 * @property {number | null} [num_parameters]
 * @property {string[]} [capabilities]
 * @property {number} [running]
 * @property {number} [waiting]
 * @property {Record<string, any> | null} [recommended]  what suits it in a chat: system and settings, null where nothing is known
 *
 * @typedef {object} SessionFacts
 * @property {string} version
 * @property {boolean} login_required
 * @property {string[] | null} [guest_notice]  what guests are told before they begin; null where none may
 * @property {boolean} [sees_runs]  training runs are shown
 * @property {boolean} [sees_keys]  API keys are shown
 * @property {boolean} [sees_fleet]  workers are shown
 * @property {{name: string, kind: "local" | "key"} | null} user
 */
export {};
