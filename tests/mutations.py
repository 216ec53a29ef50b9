"""The mistakes that `mutants.py` makes: each a text that its file has once, what is written instead, and tests that find it.

Texts are short, and the tests the quickest that have to fail. Who changes such a line changes it here; who adds a rule that
results hang on adds the mistake that somebody might make there.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutation(NamedTuple):
    file: str
    old: str
    new: str
    tests: str  # as pytest is told them


FLEET = "tests/test_fleet.py"
FLEET_BITS = f"{FLEET}::test_a_fleet_makes_what_one_machine_makes"
COMPILED = "tests/test_compiled_programs.py"
SCALE = "tests/test_scale.py"
UPLOADED, ASKED_JOBS = "tests/test_http_files.py", "tests/test_http_jobs.py"
TRAINING_QUOTAS, ESTIMATES = "tests/test_training_quotas.py", "tests/test_job_estimates.py"
FULL_DISK = f"{TRAINING_QUOTAS}::test_a_full_disk_loses_no_account"
JOBS_MODEL = f"{ASKED_JOBS}::test_from_chats_to_the_model_that_the_job_names"
TOO_LATE = "tests/test_job_trainer.py::test_too_late_or_just_in_time"
TOLD_LATER = "tests/test_job_trainer.py::test_a_job_that_fails_on_a_full_disk_is_told_of_later"
ONE_SLOT = "tests/test_job_trainer.py::test_a_job_has_one_slot_however_fast_it_is_paused_and_resumed"
TOO_LARGE_A_LOOP = "tests/test_loops.py::test_a_loop_too_large_for_the_machine_is_refused"
RESULTS_ONCE = f"{UPLOADED}::test_results_are_kept_once"
IN_ALL = f"{UPLOADED}::test_a_tenant_has_so_much_in_all"
RESTARTED = f"{ASKED_JOBS}::test_what_was_made_is_asked_after_a_restart"
TRAINING_OF_A_KEY = "tests/test_tinker_api.py::test_a_key_has_so_much_training"
COMMANDED = "tests/test_by_names.py::test_words_are_learnt_by_commands"
OWN_HEAD_TRAINED = "tests/test_own_heads.py::test_a_checkpoints_head_is_trained_on"
COUPLED = "tests/test_maple.py::test_loss_and_gradients_are_those_of_the_papers_equations"
COUPLED_FILES = "tests/test_maple.py::test_adapters_of_unlike_sizes_in_one_batch_and_in_files"
COUPLED_START = "tests/test_maple.py::test_its_first_prompt_begins_as_the_words_that_it_replaces"
COUPLED_HALF = "tests/test_maple.py::test_at_pictures_alone_it_is_vpt"
OPEN_CLIP = "tests/test_open_clip.py"
PROMISED, WIRE, TINKER = "tests/test_tinker_promises.py", "tests/test_tinker_wire.py", "tests/test_tinker_api.py"
RAY_SERVING = "tests/test_ray_serving.py"
BENCH_HALVING = "tests/test_bench_halving.py"
BENCH_PICTURES = "tests/test_bench_pictures.py"
ASKED = "tests/test_http_pictures.py"
BYPASS = "tests/test_convpass.py::test_the_bypass_is_the_papers_in_torch"
MASKED, SEGMENTED = "tests/test_picture_masks.py", "tests/test_segmentation.py"
BOXES, DETECTED = "tests/test_boxes.py", "tests/test_detection.py"
SHARED_FACTORS = "tests/test_fact.py::test_what_is_shared_trains_as_one_array"
RENEWED = "tests/test_adabn.py::test_a_batch_counts_by_its_pictures"
SCHEDULES, STEP = "tests/test_schedules.py", "tests/test_step.py"
SHARED_BASE, UNREAD, TOGETHER = "tests/test_fsdp.py", "tests/test_unread.py", "tests/test_tensor_parallel.py"
PROCESSES = "tests/test_processes.py"
WORDS = f"{PROCESSES}::test_words_are_the_same_everywhere_and_who_does_not_come_is_named"
FUSED, DEVICES = "tests/test_fused_attention.py", "tests/test_devices.py"
CHOOSING, MASKS, BATCHES = "tests/test_choosing.py", "tests/test_masks.py", "tests/test_batches.py"
RATES, VALIDATION, TRAINING = "tests/test_strategies.py", "tests/test_validation.py", "tests/test_training.py"
KEPT, LOWEST = f"{VALIDATION}::test_the_loss_decides_a_tie", f"{VALIDATION}::test_of_a_metric_that_falls_the_lowest_is_the_best"
LOSSES = "tests/test_data_tasks.py::test_losses_equal_the_formulas"
PREFERENCE = "tests/test_preference.py::test_loss_and_gradient_equal_torch"
FILES, DISK, BANK = "tests/test_contract_files.py", "tests/test_disk.py", "tests/test_bank.py"
RESIDENTS, ENGINE = "tests/test_residents.py", "tests/test_engine.py"
BESIDE = f"{ENGINE}::test_what_a_text_becomes_does_not_depend_on_its_neighbours"
TAKEN_OVER = f"{ENGINE}::test_a_prompt_that_begins_as_another_text_is_read_from_there_on"
LONG_TEXTS = f"{ENGINE}::test_long_texts_beside_short_ones"
SAID = f"{ENGINE}::test_texts_are_what_a_whole_forward_pass_says[llama]"
SAID_BY_PLACES = f"{ENGINE}::test_texts_are_what_a_whole_forward_pass_says[gpt2]"  # with learned positions
FACTS = "tests/test_adapter_files.py"
GGUF = "tests/test_gguf.py"
EXPLAINED = "tests/test_explanations.py"
FEATURES = "tests/test_strategies.py::test_kept_features_train_the_same"
RESUMED, ANSWERS = "tests/test_resuming.py::test_resume_in_process", f"{VALIDATION}::test_the_loss_is_that_of_the_answers"
EACH, MEAN = (
    f"{VALIDATION}::test_{name}"
    for name in (
        "in_a_pack_each_is_measured_and_kept_by_itself",
        "the_loss_of_an_epoch_is_the_mean_of_its_steps",
    )
)
SHARED_ROWS = "tests/test_contract_predictions.py::test_texts_may_share_a_row"
OUTPUTS, OWN_HEADS = "tests/test_outputs.py", "tests/test_own_heads.py::test_own_head_has_transformers_logits"
PATCHES = "tests/test_picture_transformers.py"
PATCH_SIZES = "tests/test_contract_sharing.py::test_sizes_share_a_program[vpt-bert]"
TWO_TEXTS = "tests/test_encoder_decoders.py::test_equals_transformers"
WRITTEN = "tests/test_generation.py::test_greedy_equals_transformers"
EXCHANGE, ELSEWHERE = "tests/test_hub_exchange.py", "tests/test_hub_elsewhere.py"
STRANGE = "tests/test_hub_strange_artefacts.py"
RUNS, PRINTED = "tests/test_hub_runs.py", "tests/test_hub_printed.py"
CARDS, LEADERS = "tests/test_hub_cards.py", "tests/test_hub_leaderboard.py"
DIFFERENCES = "tests/test_hub_diff.py"
STORE = "tests/test_store_damage.py"
PROCESSORS, AUGMENTED = "tests/test_image_processors.py", "tests/test_augmentation.py"
STREAM, FILLING = (f"{AUGMENTED}::test_{name}" for name in ("a_stream_for_each_epoch_and_item", "filling_is_nobody_s_partner"))
LONG, CONVOLUTIONS = "tests/test_serving.py::test_pairs_and_long_rows", "tests/test_convolutions.py"
WIDENED = "tests/test_products.py"

PAIRED, CONTRASTED = "tests/test_pairs.py", "tests/test_contrastive.py"

FEW = "tests/test_few_shot.py"

NAMED = "tests/test_by_names.py"
ACROSS = "tests/test_across.py"
LOOPS = "tests/test_loops.py"
GRPO = "tests/test_grpo.py"
GRPO_LOSS, GRPO_LOOP = f"{GRPO}::test_loss_and_slope_are_the_papers", f"{GRPO}::test_equals_a_plain_loop"
GRPO_RESUMED = f"{GRPO}::test_goes_on_where_it_was_stopped[between]"

MUTATIONS = [
    Mutation("tuning/grpo/advantages.py", "rewards.std(1, ddof=1", "rewards.std(1, ddof=0", f"{GRPO}::test_advantages"),
    Mutation("tuning/grpo/surrogate.py", "np.minimum(free, bounded)", "np.maximum(free, bounded)", GRPO_LOSS),
    Mutation("tuning/grpo/surrogate.py", "(1.0 - np.exp(apart))", "np.exp(apart)", GRPO_LOSS),
    Mutation("tuning/grpo/surrogate.py", "(len(lengths) * each)", "each", GRPO_LOSS),
    Mutation("tuning/grpo/grpo_learner.py", "if iteration or base", "if base", f"{GRPO_LOOP}[dr_grpo]"),
    Mutation(
        "tuning/grpo/grpo_learner.py",
        "[self.recipe.seed, step]",
        "[self.recipe.seed]",
        f"{GRPO}::test_nothing_that_differs_is_said",
    ),
    Mutation("tuning/grpo/grpo_learner.py", "self.updates = updates", "self.updates = 0", GRPO_RESUMED),
    Mutation(
        "tuning/grpo/grpo_run.py",
        "self.telling += not flat.all()",
        "self.telling += 1",
        f"{GRPO}::test_nothing_that_differs_is_said",
    ),
    Mutation("tuning/grpo/rewards.py", "one.text.strip() == rows", "one.text == rows", f"{GRPO}::test_rules"),
    Mutation("tuning/grpo/rewards.py", "or not math.isfinite(number)", "", f"{GRPO}::test_rewards_that_are_none[NaN]"),
    Mutation("train/pack.py", "task.output.bare or several or", "task.output.bare or", SEGMENTED),
    Mutation("serve/http/classify.py", "answer.score.get(label, 0.0) for label in labels", "0.0 for label in labels", ASKED),
    Mutation("models/backbone.py", "few = longest <=", "few = self._layers <=", "tests/test_by_layer.py"),
    Mutation("tasks/by_names.py", "prepared.texts if planned.items else ()", "prepared.texts", NAMED),
    Mutation("serve/other_tower.py", "means[of] - means[other]", "means[other] - means[of]", ACROSS),
    Mutation("tasks/metrics.py", "rank = 1 + np.take_along_axis", "rank = np.take_along_axis", CONTRASTED),
    Mutation(
        "tasks/by_names.py",
        "jnp.where(labels.there, ",
        "jnp.where(True, ",
        f"{NAMED}::test_loss_and_gradient_are_those_of_the_paper",
    ),
    Mutation(
        "tasks/by_names.py",
        "inputs = inputs._replace(text=labels.inputs)",
        "inputs = inputs",
        f"{NAMED}::test_loss_and_gradient_are_those_of_the_paper",
    ),
    Mutation(
        "adapters/structure.py",
        "towers.index(site.tower) if site.tower in towers else 0",
        "0",
        f"{NAMED}::test_words_are_learnt",
    ),
    Mutation("train/learned_words.py", "and int(ids[0]) not in in_names", "", f"{NAMED}::test_what_cannot_be_learnt"),
    Mutation(
        "adapters/methods/tip_adapter.py", 'near * state["held"]', "near", f"{FEW}::test_tip_adapter_is_that_of_the_paper"
    ),
    Mutation(
        "adapters/methods/clip_adapter.py",
        'unit((1.0 - state["ratio"]) * v',
        "unit(v",
        f"{FEW}::test_clip_adapter_is_that_of_the_paper",
    ),
    Mutation(
        "train/job.py", "sorted(trainable) if self.goes_on else ()", "()", f"{FEW}::test_what_is_trained_on_decides_the_run"
    ),
    Mutation(
        "serve/few_pictures.py",
        "head.vectors(features, frozen)[",
        "features[",
        f"{FEW}::test_tip_adapter_is_that_of_the_paper",
    ),
    Mutation("tasks/contrastive.py", "labels[None, :]).any(-1)", "labels[None, :]).all(-1)", CONTRASTED),
    Mutation("tasks/contrastive.py", "jnp.where(there, logits, -1e9)", "logits", CONTRASTED),
    Mutation("tasks/contrastive.py", "jnp.where(there, each, 0.0)", "each", CONTRASTED),
    Mutation(
        "adapters/structure.py",
        "== begins[0] and not within",
        "== begins[0]",
        f"{PAIRED}::test_what_lies_above_a_tower_is_in_it",
    ),
    Mutation(
        "models/pairs.py", "first == IMAGE and structure", "structure", f"{PAIRED}::test_what_lies_above_a_tower_is_in_it"
    ),
    Mutation(
        "serve/predictor.py",
        "vectors[0][: row[0].vector_size]",
        "vectors[0]",
        f"{PAIRED}::test_unlike_towers_need_an_adapter",
    ),
    Mutation("adapters/methods/joint.py", ", 1e-24)", ", 0.0)", CONTRASTED),
    Mutation(
        "adapters/methods/lenses.py",
        "dv.sum(-3)[..., -seen.shape[-2] :, :], dv",
        "dv.sum(-3)[..., : seen.shape[-2], :], dv",
        f"{EXPLAINED}::test_rollout_leaves_out_what_is_no_part_of_the_picture",
    ),
    Mutation(
        "adapters/methods/lenses.py",
        "tokens[..., -high * wide :, :]",
        "tokens[..., : high * wide, :]",
        f"{EXPLAINED}::test_grad_cam_equals_torch_on_patches",
    ),
    Mutation(
        "serve/explaining/question.py",
        "if name in HEADS}",
        "if name}",
        f"{EXPLAINED}::test_with_an_adapter_it_is_that_of_the_merged_model[rollout]",
    ),
    Mutation(
        "serve/explaining/curves.py",
        "(np.greater_equal, np.less)",
        "(np.less, np.greater_equal)",
        f"{EXPLAINED}::test_curves_of_a_model_that_looks_at_one_part",
    ),
    Mutation(
        "serve/explaining/rollout.py",
        "layer @ rolled",
        "rolled @ layer",
        f"{EXPLAINED}::test_attention_and_rollout_equal_transformers",
    ),
    Mutation(
        "tasks/labelled.py",
        "jnp.where(of_label, -1e9, logits), axis=-1)",
        "logits, axis=-1)",
        f"{EXPLAINED}::test_evidence_is_the_log_odds_of_a_label",
    ),
    Mutation(
        "adapters/methods/head.py", "logits if y is None else _together(y, logits)", "logits", "tests/test_heads_beside.py"
    ),
    # -- texts in lanes
    Mutation("serve/lanes.py", "& (columns < virtual + tokens)", "", TAKEN_OVER),
    Mutation("serve/lane_pool.py", "request.ids[:-1]", "request.ids", TAKEN_OVER),
    Mutation("serve/lane_pool.py", "text.request.plan == request.plan", "True", TAKEN_OVER),
    Mutation("serve/lane_pool.py", "(*of_slots, *(leaf.shape", "(*of_slots[:0], *(leaf.shape", BESIDE),
    Mutation(
        "serve/lanes.py",
        "lanes.cache.column[which] + real.sum(1, dtype=jnp.int32)",
        "lanes.cache.column[which] + new",
        f"{ENGINE}::test_padding_behind_a_prompts_last_chunk_takes_no_columns",
    ),
    Mutation(
        "serve/lanes.py",
        '_CACHE: dict[str, Any] = {"keys": 2, "values": 2, "mask": 1',
        '_CACHE: dict[str, Any] = {"keys": 2, "values": 2, "mask": 0',
        SAID,
    ),
    Mutation("serve/lanes.py", "leaf.at[which, :, :width].set(own)", "leaf", SAID),
    Mutation("serve/lanes.py", "lanes.written.ids.at[which, : ids.shape[1]].set(ids)", "lanes.written.ids", WRITTEN),
    Mutation("serve/writer.py", "batch.cache.column - padding", "batch.cache.column", SAID),
    Mutation("serve/writer.py", "written=standing.written.add_all(ids, real)", "written=standing.written", BESIDE),
    Mutation("serve/restraint.py", "columns < self.length[:, None]", "columns >= 0", BESIDE),
    Mutation("serve/lane_pool.py", "self.virtual + self.read", "self.read", LONG_TEXTS),
    Mutation(
        "serve/lane_pool.py",
        "self.ladders.begun(whole)",
        "self.ladders.begun()",
        f"{ENGINE}::test_an_invocation_is_found_in_a_prompt_that_is_longer_than_a_chunk",
    ),
    Mutation("serve/lane_pool.py", "least[: len(texts)] = ", "_ = ", "tests/test_generation_config.py"),
    Mutation(
        "serve/holding.py", "self._release(held)", "pass", f"{ENGINE}::test_who_waits_for_an_adapter_lets_others_go_first"
    ),
    Mutation(
        "serve/engine.py",
        "if request.done or request.cancelled:",
        "if request.done:",
        f"{ENGINE}::test_a_text_that_nobody_wants_any_longer_frees_its_lane",
    ),
    Mutation(
        "serve/engine.py",
        "            self.holding.release(request)\n        self.pool.forget()",
        "        self.pool.forget()",
        f"{ENGINE}::test_an_error_ends_those_in_lanes_and_the_engine_goes_on",
    ),
    Mutation("models/decoder.py", "cache.ends + count", "cache.ends + new", SAID_BY_PLACES),
    Mutation(
        "models/decoder.py",
        "mask[:, None, :] & (filled[:, None, :] <= positions[:, :, None])",
        "jnp.broadcast_to(mask[:, None, :], (rows, new, mask.shape[1]))",
        SAID,
    ),
    # -- a step of training
    Mutation("train/step.py", "rise = jnp.minimum(1.0,", "rise = jnp.maximum(1.0,", SCHEDULES),
    Mutation("train/step.py", "(now + 1.0)", "now", SCHEDULES),
    Mutation("train/step.py", "(1.0 + jnp.cos(jnp.pi * done))", "(2.0 - 2.0 * done)", SCHEDULES),
    Mutation("train/step.py", "[h.schedule]", "[0]", SCHEDULES),
    Mutation(
        "train/step.py",
        'if "conv" in kinds and "attention" not in kinds',
        "if False",
        "tests/test_step.py::test_slots_take_turns_where_layers_make_maps_of_maps",
    ),
    Mutation("train/step.py", "round(recipe.warmup * total)", "int(recipe.warmup * total)", SCHEDULES),
    Mutation("train/step.py", "jnp.where(rate > 0, g, 0.0)", "g", STEP),
    Mutation("train/step.py", "jnp.minimum(1.0, learner.hyper.clip", "jnp.maximum(1.0, learner.hyper.clip", STEP),
    Mutation("train/step.py", "u - learner.hyper.weight_decay * p", "u", STEP),
    Mutation("train/step.py", "lr * rate *", "lr *", STEP),
    Mutation("train/step.py", "learner.step >= begins", "learner.step > begins", STEP),
    Mutation(
        "train/step.py", "learning_rate(learner.hyper, learner.step)", "learning_rate(learner.hyper, learner.step + 1)", STEP
    ),
    Mutation("train/step.py", "live & finite &", "finite &", STEP),
    Mutation("train/step.py", "live & finite &", "live &", STEP),
    Mutation("train/step.py", "& ~learner.failed", "", STEP),
    Mutation("train/step.py", "(live & ~finite)", "~finite", STEP),
    Mutation("train/step.py", "learner.loss + loss", "loss", STEP),
    Mutation("train/step.py", "learner.step.astype(jnp.uint32))", "jnp.uint32(0))", STEP),
    Mutation("train/step.py", "jax.random.key(learner.hyper.seed,", "jax.random.key(0,", STEP),
    Mutation("train/optimizer.py", "recipe.lora_plus if", "1.0 if", f"{RATES}::test_lora_plus"),
    Mutation("train/optimizer.py", "layer_decay**below", "layer_decay", f"{RATES}::test_discriminative_rates"),
    Mutation(
        "train/optimizer.py",
        "recipe.unfreeze * epoch",
        "recipe.unfreeze",
        f"{RATES}::test_a_layer_begins_after_whole_steps_of_its_epochs",
    ),
    # -- which epoch is kept, and when training ends
    Mutation("train/epoch_end.py", "reached > bookmark.best", "reached >= bookmark.best", KEPT),
    Mutation("train/epoch_end.py", "bookmark.waited += 1", "pass", KEPT),
    Mutation("train/epoch_end.py", "bookmark.waited >= patience", "bookmark.waited > patience", KEPT),
    Mutation("train/epoch_end.py", '-scores["loss"]', 'scores["loss"]', KEPT),
    Mutation("train/epoch_end.py", "kept = bookmark.best_epoch if", "kept = bookmark.epoch if", KEPT),
    Mutation("train/epoch_end.py", "-1.0 if pack.task.lower_is_better", "1.0 if pack.task.lower_is_better", LOWEST),
    Mutation(
        "train/pack.py",
        "if job.val is None:\n            return self.now",
        "if True:\n            return self.now",
        f"{TRAINING}::test_best_epoch_is_kept_and_stops_early",
    ),
    # -- a pack: which slots step, what of a slot is trained, measured and kept, and what a checkpoint has of it
    Mutation(
        "train/pack.py",
        "for k in live if k in self.spread.own",
        "for k in self.spread.own",
        "tests/test_packs.py::test_idle_slots_keep_every_bit",
    ),
    Mutation("adapters/adapter.py", "np.array(held, np.float32)", "np.ones_like(held, np.float32)", "tests/test_layouts.py"),
    Mutation("train/step.py", "lambda leaf: leaf[slot], (pack.trainable", "lambda leaf: leaf[0], (pack.trainable", EACH),
    Mutation("train/step.py", "lambda leaf: leaf[slot], pack.hyper", "lambda leaf: leaf[0], pack.hyper", EACH),
    Mutation("train/pack.py", "leaf[at], settled(", "leaf[0], settled(", EACH),
    Mutation("train/pack.py", "np.int32(slot), np.float32(0))", "np.int32(slot), learners.loss[at])", MEAN),
    Mutation("train/pack.py", "float(total) / bookmark.position", "float(total)", MEAN),
    Mutation("train/pack.py", "(shape.items) < len(planned.items)", "(shape.items) <= len(planned.items)", ANSWERS),
    Mutation("train/pack.py", "float(loss) * len(planned.items)", "float(loss) * job.shape.items", ANSWERS),
    Mutation(
        "train/pack.py",
        'self.learners, self.best = arrays["state"], arrays["best"]',
        'self.learners = arrays["state"]',
        f"{VALIDATION}::test_the_best_epoch_outlasts_a_stop",
    ),
    Mutation("train/queue.py", '= facts["waiting"], ', "= self.waiting, ", RESUMED),
    Mutation("train/queue.py", 'self.history = facts["history"]', "pass", RESUMED),
    # -- what frozen layers make of items, kept
    Mutation("train/features.py", "made[batch_row, begin : begin +", "made[batch_row, :", f"{FEATURES}[probe-tokens]"),
    Mutation("train/features.py", "hidden[batch_row, begin : begin +", "hidden[batch_row, :", f"{FEATURES}[probe-tokens]"),
    Mutation("train/features.py", "else made[k]", "else made[0]", f"{FEATURES}[probe]"),
    Mutation("train/features.py", "hidden[k] = ", "hidden[0] = ", f"{FEATURES}[probe]"),
    Mutation(
        "adapters/structure.py",
        "self.stacks[site.stack] - depths[site.stack]))",
        "self.stacks[site.stack]))",
        f"{FEATURES}[last]",
    ),
    Mutation(
        "train/pack.py",
        "self.features.expect(self.jobs[bookmark.job])",
        "pass",
        "tests/test_strategies.py::test_resume_computes_the_same_features",
    ),
    # -- losses
    Mutation("tasks/labelled.py", "classes, logits, -1e9", "classes, logits, 0.0", LOSSES),
    Mutation("tasks/labelled.py", "(labels != IGNORE).astype(each.dtype)", "jnp.ones_like(each)", LOSSES),
    Mutation("tasks/labelled.py", "- labels * logits", "- logits", LOSSES),
    Mutation(
        "tasks/preference.py",
        "rewards[::2] - rewards[1::2]",
        "rewards[1::2] - rewards[::2]",
        PREFERENCE,
    ),
    # -- labels and outputs, where their items lie
    Mutation("tasks/outputs.py", "laid[batch_row, begin : begin +", "laid[batch_row, :", OUTPUTS),
    Mutation("tasks/outputs.py", "outputs[batch_row, begin : begin +", "outputs[batch_row, :", OUTPUTS),
    Mutation("tasks/outputs.py", "if first.ndim else k]", "if first.ndim else i]", OUTPUTS),
    Mutation("tasks/outputs.py", "segments[..., None] == texts", "segments[..., None] >= texts", "tests/test_preference.py"),
    # -- batches
    Mutation("data/batches.py", "taken + length <=", "taken + length <", BATCHES),
    Mutation("data/batches.py", "default_rng([seed, epoch])", "default_rng(seed)", BATCHES),
    Mutation("data/batches.py", "begin += lengths[", "begin -= lengths[", BATCHES),
    Mutation("data/batches.py", "len(batches[-1]) == most", "len(batches[-1]) > most", BATCHES),
    # -- how a token is chosen
    Mutation("serve/choice.py", "rank < settings.top_k", "rank <= settings.top_k", CHOOSING),
    Mutation("serve/choice.py", "axis=-1) - chances <", "axis=-1) <", CHOOSING),
    Mutation("serve/choice.py", "* chances[:, :1]", "", CHOOSING),
    Mutation("serve/choice.py", "jnp.where(within, ranked, -jnp.inf)", "ranked", CHOOSING),
    Mutation("serve/choice.py", "logits / penalty, logits * penalty", "logits / penalty, logits / penalty", CHOOSING),
    Mutation("serve/choice.py", "number.astype(jnp.uint32)", "jnp.uint32(0)", CHOOSING),
    Mutation("serve/choice.py", "logits / jnp.where(settings.temperature", "logits * jnp.where(settings.temperature", CHOOSING),
    Mutation("serve/choice.py", "settings.temperature > 0, drawn", "settings.temperature >= 0, drawn", CHOOSING),
    # -- patches of a picture
    Mutation("models/swin.py", "index >= size - moved", "index > size - moved", f"{PATCHES}::test_stages_equal_transformers"),
    Mutation(
        "models/grids.py",
        "row[:, None] - row[None]",
        "row[None] - row[:, None]",
        f"{PATCHES}::test_hidden_states_equal_transformers",
    ),
    Mutation("models/resampling.py", "-0.75, -0.5  #", "-0.5, -0.5  #", f"{PATCHES}::test_pictures_of_another_size"),
    Mutation(
        "models/picture_transformer.py", "jnp.full(rows, added,", "jnp.full(rows, 0,", f"{PATCHES}::test_vpt_is_the_papers"
    ),
    Mutation(
        "adapters/methods/lycoris.py",
        "pqhw,qi,po->ihwo",
        "pqhw,pi,qo->ihwo",
        "tests/test_convolved_methods.py::test_the_others_are_pefts[loha_effective-plain]",
    ),
    Mutation("adapters/methods/convpass.py", "narrowed(frozen.before(x),", "narrowed(x,", BYPASS),
    Mutation("adapters/methods/convpass.py", ":alone, :] @ kernel[1, 1]", ":alone, :] @ kernel[0, 0]", BYPASS),
    Mutation("train/method_hooks.py", "jnp.where(own, total, 0.0)", "grads[name][key][leaf]", SHARED_FACTORS),
    Mutation("train/method_hooks.py", "/ jnp.sqrt(jnp.maximum(copies, 1).astype(jnp.float32))", "", SHARED_FACTORS),
    Mutation("adapters/methods/adabn.py", "var * count / jnp.maximum(count - 1.0, 1.0)", "var", RENEWED),
    Mutation("train/calibration.py", "lambda planned: len(planned.items)", "lambda planned: 1.0", RENEWED),
    Mutation("adapters/methods/vpt.py", 'state["prompt"], state["mask"]', 'state["prompt"], ~state["mask"]', PATCH_SIZES),
    # -- who sees whom
    Mutation("train/spreading.py", "or i < shared else", "or i <= shared else", DEVICES),
    Mutation(
        "train/spreading.py", "(processes.index() + 1) * each", "each", f"{PROCESSES}::test_two_processes_make_the_bits_of_one"
    ),
    Mutation("train/spreading.py", "-(-jobs // many)", "jobs // many", f"{PROCESSES}::test_devices_are_those_of_all_processes"),
    Mutation("train/meetings.py", "any(stops for", "all(stops for", f"{PROCESSES}::test_processes_meet_about_once_a_second"),
    Mutation(
        "train/meetings.py", "max(seconds for", "min(seconds for", f"{PROCESSES}::test_processes_meet_about_once_a_second"
    ),
    Mutation(
        "train/queue.py", "other[name] != said[0][name]", "False", f"{PROCESSES}::test_a_worker_of_another_version_is_refused"
    ),
    Mutation("graftax/processes.py", 'one["topic"] != topic', "False", WORDS),
    Mutation("graftax/processes.py", "words(topic, str(error))", "pass", WORDS),
    Mutation("graftax/processes.py", "if process not in came", "if process in came", WORDS),
    Mutation("graftax/watchdog.py", "if among_others and code", "if code", "tests/test_watchdog.py"),
    Mutation(
        "graftax/watchdog.py",
        "recv(4096):\n                    heard = time.monotonic()",
        "recv(4096):\n                    pass",
        "tests/test_watchdog.py::test_who_does_nothing_is_killed_and_who_is_slow_is_not",
    ),
    Mutation(
        "models/sharded.py",
        '("in", "rows", "out", "dim")',
        '("out", "in", "dim", "rows")',
        f"{SHARED_BASE}::test_a_weight_is_cut_along_what_divides",
    ),
    Mutation(
        "models/sharded.py",
        "shape[axes[name]] % devices == 0",
        "True",
        f"{SHARED_BASE}::test_a_weight_is_cut_along_what_divides",
    ),
    Mutation(
        "fleet/ray_cluster.py",
        "mailbox.put.remote(cloudpickle.dumps(message)).future().result()",
        "ray.get(mailbox.put.remote(cloudpickle.dumps(message)))",
        "tests/test_ray_fleet.py::test_a_worker_that_waits_keeps_its_core",
    ),
    Mutation(
        "models/tensor_parallel.py",
        '("attention_out", "ffn_out"), "in"',
        '("attention_out", "ffn_out"), "out"',
        f"{TOGETHER}::test_where_arrays_of_adapters_and_texts_are",
    ),
    Mutation(
        "models/tensor_parallel.py",
        "spec.pop()",
        "break",
        f"{TOGETHER}::test_where_arrays_of_adapters_and_texts_are",
    ),
    Mutation(
        "models/tensor_parallel.py",
        "math.lcm(key.shape[1], mesh.shape[TENSOR]) // key.shape[1]",
        "1",
        f"{TOGETHER}::test_a_kernel_is_called_on_each_device_for_its_attention_heads",
    ),
    Mutation(
        "serve/writer.py",
        "jax.lax.with_sharding_constraint(leaf, self.where(leaf.shape))",
        "leaf",
        f"{TOGETHER}::test_texts_are_those_of_one_device",
    ),
    Mutation(
        "models/sharded.py",
        "primitive is not jax.lax.all_gather_p",
        "True",
        f"{SHARED_BASE}::test_gradients_are_those_of_whole_weights",
    ),
    Mutation(
        "models/unread.py",
        "for axis in np.argsort(self.weight.axes)",
        "for axis in self.weight.axes",
        f"{UNREAD}::test_what_is_read_is_what_is_held_in_memory",
    ),
    Mutation("models/unread.py", "self.quantise is None\n\n", "True\n\n", f"{UNREAD}::test_kernels_are_quantised_one_by_one"),
    Mutation(
        "models/checkpoint.py",
        "self._expect_unchanged()  # meanwhile",
        "pass",
        f"{UNREAD}::test_a_file_that_changes_is_refused",
    ),
    Mutation(
        "train/frozen_weights.py",
        'with processes.sound("the weights"):',
        "if True:",
        f"{UNREAD}::test_each_process_reads_its_own_parts_and_what_one_finds_ends_all",
    ),
    Mutation(
        "models/stack.py",
        "if is_split(weights) else",
        "if False else",
        f"{SHARED_BASE}::test_gradients_are_those_of_whole_weights",
    ),
    Mutation("train/queue.py", "if any(size % spread for", "if any(size < spread for", DEVICES),
    Mutation(
        "tuning/loops/loops.py",
        "next((count for count in larger if has(count)), least)",
        "least",
        "tests/test_loops.py::test_fewer_calls_use_the_programs_of_more",
    ),
    Mutation("train/step.py", "max(1, _BUSY // positions_of(of_one))", "max(2, _BUSY // positions_of(of_one))", STEP),
    Mutation("models/inputs.py", "-(-math.prod(inputs.pixels.shape[:-1]) // _PATCH)", "math.prod(inputs.pixels.shape)", STEP),
    Mutation("models/ops.py", "jnp.where(mask, 0.0, -1e30)", "jnp.where(mask, 0.0, -1.0)", MASKS),
    Mutation("models/ops.py", "(dw - (dw * weights).sum(-1, keepdims=True))", "dw", MASKS),
    Mutation("models/ops.py", "scale * math.sqrt(size)", "scale", MASKS),
    Mutation("models/fused_attention.py", "(same_text.window - 1, 0)", "(same_text.window, 0)", FUSED),
    Mutation("models/fused_attention.py", "keys - queries  # keys in front", "0  # keys in front", FUSED),
    Mutation("adapters/methods/prefix.py", "y.texts, -1)  # a row", "y.texts * 0, -1)  # a row", FUSED),
    Mutation("models/text_stack.py", "positions[:, None, :] <= positions", "positions[:, None, :] >= positions", MASKS),
    Mutation("models/text_stack.py", "own &= segments[:, :, None] ==", "own &= segments[:, :, None] >=", MASKS),
    Mutation("models/text_stack.py", "< c.window", "<= c.window", MASKS),
    Mutation("models/encoder.py", "own = segments[:, :, None] ==", "own = segments[:, :, None] >=", MASKS),
    Mutation("models/encoder.py", "View(mask[:, None],", "View(jnp.ones_like(mask)[:, None],", MASKS),
    Mutation("models/encoder_decoder.py", "sight & (positions[:, None] <= positions[:, :, None])", "sight", TWO_TEXTS),
    Mutation(
        "models/encoder_decoder.py",
        "view.source.mask, None, calls)",
        "jnp.ones_like(view.source.mask), None, calls)",
        TWO_TEXTS,
    ),
    Mutation("models/text_stack.py", "jnp.argmax(mask[:, ::-1], axis=1)", "jnp.argmax(mask, axis=1)", OWN_HEADS),
    Mutation("models/decoder.py", "cache.ends + count, cache.called", "cache.ends, cache.called", WRITTEN),
    Mutation("models/decoder.py", "-1), axis=1) + 1", "-1), axis=1)", WRITTEN),
    Mutation(
        "adapters/methods/prefix.py",
        '{"mask": np.zeros(size, bool)}',
        '{"mask": np.ones(size, bool)}',
        f"{BANK}::test_a_row_without_an_adapter_is_the_backbones_beside_any",
    ),
    # -- where items lie in a batch, and where tokens are in their texts
    Mutation("models/tokens.py", "text.types, i + 1", "text.types, 1", SHARED_ROWS),
    Mutation("models/tokens.py", "row * size[1] + begin", "row * size[1]", SHARED_ROWS),
    Mutation("models/tokens.py", "types[i, : len(text)] = text.types", "pass", LONG),
    Mutation("models/tokens.py", "room // 4", "room // 3", LONG),
    Mutation(
        "models/inputs.py", "return count - jax.lax.cummax((count - counted) * begins, axis=1)", "return count", SHARED_ROWS
    ),
    Mutation("models/inputs.py", "jnp.where(segments > 0, distance, FAR)", "distance", "tests/test_reft.py"),
    Mutation(
        "models/pictures.py",
        "item.levels[:, channel]",
        "item.levels[:, 0]",
        "tests/test_picture_processor.py::test_batches",
    ),
    Mutation(
        "models/preparation.py",
        "where, _NEAREST, VOID)",
        "where, self.resample, VOID)",
        f"{MASKED}::test_prepared_as_the_picture_is",
    ),
    Mutation(
        "models/augmented_pictures.py",
        "jnp.where(mirrored, mask[:, ::-1], mask)",
        "mask",
        f"{MASKED}::test_augmented_as_the_picture_is",
    ),
    Mutation("models/augmented_pictures.py", "matrix, VOID)", "matrix, 0)", f"{MASKED}::test_augmented_as_the_picture_is"),
    Mutation("tasks/segmentation.py", "(labels != VOID) & ", "", f"{SEGMENTED}::test_the_loss_is_torchs"),
    Mutation("tasks/segmentation.py", "numbers[~seen] = VOID", "pass", f"{SEGMENTED}::test_an_answer_has_its_picture_s_size"),
    Mutation("tasks/segmentation_metrics.py", "if either[i]}", "}", f"{SEGMENTED}::test_metrics_are_those_of_a_loop"),
    Mutation(
        "adapters/bilinear.py",
        "(np.arange(new) + 0.5) * (old / new) - 0.5",
        "np.arange(new) * (old / new)",
        f"{SEGMENTED}::test_resized_as_torch_does",
    ),
    Mutation(
        "adapters/methods/detection_head.py",
        "np.concatenate([points[:, ::-1], sides]",
        "np.concatenate([points, sides]",
        f"{DETECTED}::test_questions_begin_spread_over_the_picture",
    ),
    Mutation(
        "serve/http/classify.py",
        "THRESHOLD if threshold is None else threshold",
        "THRESHOLD",
        f"{ASKED}::test_objects_above_a_threshold",
    ),
    Mutation(
        "adapters/methods/detection_head.py", "seen + places, seen)", "seen, seen)", f"{DETECTED}::test_the_decoder_is_detrs"
    ),
    Mutation(
        "adapters/methods/detection_head.py",
        'jnp.broadcast_to(state["present"], nothing.shape)',
        "jnp.ones_like(nothing)",
        f"{DETECTED}::test_one_batch_of_all_kinds",
    ),
    Mutation(
        "tasks/set_loss.py",
        "_OF_NOTHING, 1.0), 0.0)",
        "1.0, 1.0), 0.0)",
        f"{DETECTED}::test_matching_and_loss_are_transformers",
    ),
    Mutation("tasks/set_loss.py", "- (around - both) / around", "", f"{DETECTED}::test_giou_is_transformers"),
    Mutation(
        "tasks/set_loss.py",
        "jnp.where(there[..., None], jnp.where(jnp.isfinite(cost), cost, _BEYOND), 0.0)",
        "jnp.where(jnp.isfinite(cost), cost, 0.0)",
        f"{DETECTED}::test_the_cheapest_is_scipys",
    ),
    Mutation("tasks/detection_metrics.py", '"iscrowd": int(crowd)', '"iscrowd": 0', f"{DETECTED}::test_metrics_by_hand"),
    Mutation("tasks/detection.py", "if not own.crowd[which]", "", f"{DETECTED}::test_what_else_is_said"),
    Mutation("models/preparation.py", "* factors - begins", "* factors", f"{BOXES}::test_placed_as_the_pixels_are"),
    Mutation(
        "models/augmented_pictures.py",
        "jnp.where(mirrored, 1.0 - across, across)",
        "across",
        f"{BOXES}::test_augmented_as_the_picture_is",
    ),
    Mutation(
        "models/augmented_pictures.py",
        "jnp.where(enough, mask.numbers, NOTHING)",
        "mask.numbers",
        f"{BOXES}::test_augmented_as_the_picture_is",
    ),
    Mutation("models/preparation.py", "round((own - wanted) / 2) if to_even else", "", f"{PROCESSORS}::test_as_timm_prepares"),
    Mutation("models/preprocessor_config.py", "shift=-1.0 if", "shift=0.0 if", f"{PROCESSORS}::test_as_transformers_prepares"),
    Mutation("models/preprocessor_config.py", "int(side / share)", "side", f"{PROCESSORS}::test_as_transformers_prepares"),
    Mutation(
        "train/augmentation.py",
        "jax.random.fold_in(stream, draws.epoch)",
        "stream",
        STREAM,
    ),
    Mutation(
        "train/augmentation.py",
        "count - 1 - index, index",
        "len(weight) - 1 - index, index",
        FILLING,
    ),
    Mutation(
        "train/augmentation.py",
        "(labels, labels[mixture.partners])",
        "(labels, labels)",
        AUGMENTED,
    ),
    # -- convolutions
    Mutation(
        "adapters/geometry.py", "(reach - before, size - spread + before", "(before, size - spread + before", CONVOLUTIONS
    ),
    Mutation("adapters/geometry.py", "size - spread + before, stride - 1)", "size - spread + before, 0)", CONVOLUTIONS),
    Mutation("adapters/geometry.py", "kernel[::-1, ::-1]", "kernel[::-1]", CONVOLUTIONS),
    Mutation("adapters/geometry.py", "x[..., ::down, ::across, :]", "x[..., ::down, ::down, :]", CONVOLUTIONS),
    Mutation(
        "adapters/geometry.py", "geometry.groups == 1 and geometry.sides", "geometry.groups or geometry.sides", CONVOLUTIONS
    ),
    Mutation("adapters/products.py", "pull = _rounded(dtype, dy)", "pull = dy", WIDENED),
    Mutation("adapters/graft.py", "None if self.exact else _of_products(y)", "_of_products(y)", WIDENED),
    Mutation("adapters/products.py", "return (pull @ _rounded(dtype, w).T)", "return -(pull @ _rounded(dtype, w).T)", WIDENED),
    Mutation("serve/named_classes.py", "return (prompt,) if named == 1 else PROMPTS", "return PROMPTS", COMMANDED),
    Mutation("data/columns.py", "_NAMED.search(self[field])", "_NAMED.match(self[field])", COMMANDED),
    Mutation("train/intake.py", "before = _own_head(name, before, backbone)", "pass", OWN_HEAD_TRAINED),
    Mutation(
        "adapters/methods/vpt.py",
        'site.kind == "attention"',
        'site.kind == "input"',
        f"{PATCHES}::test_vpt_says_why_it_has_no_place_in_windows",
    ),
    Mutation(
        "adapters/methods/maple.py", "(before >= 1) & (before <= len(own))", "(before >= 0) & (before < len(own))", COUPLED
    ),
    Mutation(
        "adapters/methods/maple.py", "return 0 if site.layer is None else site.layer + 1", "return site.layer or 0", COUPLED
    ),
    Mutation(
        "adapters/methods/maple.py",
        'shared: ClassVar[tuple[str, ...]] = ("prompts",)',
        "shared: ClassVar[tuple[str, ...]] = ()",
        COUPLED_FILES,
    ),
    Mutation("adapters/methods/maple.py", "prompts[0] = table.weights()", "prompts[-1] = table.weights()", COUPLED_START),
    Mutation("adapters/halves.py", "method, held = method.half(held)", "pass", COUPLED_HALF),
    Mutation("adapters/methods/vpt.py", "+ 1 < self.first", "< self.first", COUPLED_HALF),
    Mutation(
        "models/open_clip.py",
        '"quick_gelu" if values["quick_gelu"] else "gelu"',
        '"quick_gelu"',
        f"{OPEN_CLIP}::test_layers_and_vectors_equal_torchs",
    ),
    Mutation(
        "models/open_clip_config.py",
        "resize=(height, width) if squashed else height",
        "resize=(height, width)",
        f"{OPEN_CLIP}::test_how_pictures_are_prepared",
    ),
    Mutation(
        "adapters/formats/peft/writing.py",
        "if not all(site.module for",
        "if not all(site.path for",
        f"{OPEN_CLIP}::test_an_adapter_of_the_projection_for_three",
    ),
    Mutation("models/timm_config.py", '[values["input_size"][0], *sides', "[3, *[224, 224], *sides", PROCESSORS),
    Mutation("adapters/geometry.py", "(height - 1) * down + 1, (width - 1)", "height, (width - 1)", CONVOLUTIONS),
    Mutation("adapters/geometry.py", "rhs_dilation=geometry.dilation,", "", CONVOLUTIONS),
    Mutation("adapters/geometry.py", "slice(i * far_down,", "slice(i,", CONVOLUTIONS),
    Mutation("adapters/geometry.py", "reach - size - before", "reach - size", CONVOLUTIONS),
    Mutation("adapters/geometry.py", "x.transpose(3, 1, 2, 0)", "x.transpose(3, 2, 1, 0)", CONVOLUTIONS),
    Mutation(
        "benchmarks/draws.py",
        "whole if spec.whole is None else read(spec.whole)",
        "whole",
        f"{BENCH_PICTURES}::test_lists_of_pictures_are_read",
    ),
    Mutation(
        "benchmarks/published.py", "*of_each.values()", "*scores.values()", f"{BENCH_PICTURES}::test_a_published_protocol"
    ),
    Mutation(
        "benchmarks/own_preparation.py", "own.resample", "2", f"{BENCH_PICTURES}::test_pictures_are_prepared_as_the_suite_says"
    ),
    Mutation("adapters/geometry.py", "== (1, geometry.groups)", "== (1, 1)", CONVOLUTIONS),
    Mutation("adapters/geometry.py", "bottom - high) // down", "bottom - high + down - 1) // down", CONVOLUTIONS),
    Mutation("adapters/geometry.py", "right - wide) // across", "right - wide + across - 1) // across", CONVOLUTIONS),
    Mutation("adapters/products.py", "(dtype, h, b)).astype", "(dtype, -h, b)).astype", WIDENED),
    # -- files
    Mutation(
        "adapters/directory.py",
        "facts.sha256 not in (None,",
        "facts.sha256 in (None,",
        f"{FILES}::test_damaged_weights_are_refused",
    ),
    Mutation(
        "adapters/files.py",
        "if not any_backbone and fingerprint",
        "if any_backbone and fingerprint",
        f"{FILES}::test_other_backbone_is_refused",
    ),
    Mutation(
        "adapters/files.py",
        "if facts.methods and ours:",
        "if facts.methods:",
        f"{FILES}::test_an_edited_peft_config_counts",
    ),
    Mutation(
        "adapters/facts.py", "if schema != SCHEMA", "if schema == 0", f"{FACTS}::test_a_file_that_lies_is_refused_in_a_line"
    ),
    Mutation(
        "adapters/facts.py",
        "math.isfinite(metric) else None",
        "math.isfinite(metric) else 0.0",
        f"{FACTS}::test_metrics_may_be_no_numbers_and_the_file_is_json_all_the_same",
    ),
    Mutation(
        "graftax/disk.py",
        "if path.exists() and not overwrite",
        "if False",
        f"{DISK}::test_disk_refuses_what_it_must_not_replace",
    ),
    Mutation(
        "graftax/disk.py",
        "old.rename(path)\n            raise",
        "raise",
        f"{DISK}::test_a_directory_is_replaced_whole_or_not_at_all",
    ),
    Mutation(
        "train/journal.py",
        "there[:offset]",
        "there",
        "tests/test_resuming.py::test_lines_behind_the_checkpoint_are_written_again",
    ),
    # -- answers of many rows, and of rows that use several adapters
    Mutation(
        "serve/reading_pool.py",
        "own = {index: next(made) for index in one.indices}",
        "own = {index: next(made) for index in sorted(one.indices)}",
        "tests/test_serving.py::test_many_rows_in_their_order",
    ),
    Mutation(
        "adapters/fitting.py",
        "backbone.processor.room(virtual)",
        "backbone.processor.room(0)",
        "tests/test_serving.py::test_texts_of_every_length",
    ),
    Mutation("adapters/graft.py", "* (each - y)", "* each", "tests/test_composition.py::test_the_formula_at_a_site"),
    # -- what a benchmark counts, and how many train at once
    Mutation(
        "benchmarks/halving.py",
        "len(rungs[-1]) // self.eta",
        "len(ranked) // self.eta",
        f"{BENCH_HALVING}::test_every_course_of_a_small_search",
    ),
    Mutation(
        "benchmarks/halving.py",
        "for rung in _rungs(tried) if",
        "for rung in _rungs(tried)[-1:] if",
        f"{BENCH_HALVING}::test_the_best_of_all_rungs_is_found",
    ),
    Mutation(
        "graftax/cli/ray_service.py",
        "return on if given else off",
        "return off if given else on",
        f"{RAY_SERVING}::test_what_ray_serve_is_told_is_what_the_command_would_say",
    ),
    Mutation("benchmarks/halving.py", "self.rates, self.sch", "self.first, self.sch", f"{BENCH_HALVING}::test_rungs_by_hand"),
    Mutation(
        "benchmarks/trainer.py",
        '"flops": cost.flops * steps,',
        '"flops": cost.flops,',
        "tests/test_bench.py::test_what_a_training_has_cost",
    ),
    Mutation(
        "train/pack_size.py",
        "if seconds / _WAITING > best",
        "if seconds > best",
        "tests/test_packs.py::test_a_larger_pack_must_be_worth_it",
    ),
    # -- the bank
    Mutation(
        "serve/bank.py", "range(1, self._capacity + 1)", "range(self._capacity + 1)", f"{BANK}::test_a_free_slot_is_used_again"
    ),
    Mutation(
        "serve/bank.py",
        "if slots[name] < self._capacity",
        "if slots[name] <= self._capacity",
        f"{BANK}::test_a_full_bank_grows_before_it_is_written",
    ),
    Mutation(
        "serve/bank.py",
        "elif name not in slots:",
        "else:",
        f"{BANK}::test_one_of_the_same_name_has_its_slot",
    ),
    Mutation(
        "serve/bank.py",
        "leaf.at[:, slot].set(own)",
        "leaf.at[:, slot].add(own)",
        f"{BANK}::test_a_write_that_fails_leaves_the_bank_as_it_was",
    ),
    Mutation(
        "adapters/adapter.py",
        "if space.bucket <= most:",
        "if space.bucket < most:",
        "tests/test_buckets_apart.py::test_a_bucket_has_spaces_of_its_own",
    ),
    Mutation(
        "adapters/adapter.py",
        "sizes[space.method_key].get(space.name) != space.bucket:",
        "False:",
        "tests/test_buckets_apart.py::test_a_bucket_has_spaces_of_its_own",
    ),
    # -- adapters in tiers
    Mutation(
        "serve/residents.py",
        "next(iter(self._idle), None)",
        "next(reversed(self._idle), None)",
        f"{RESIDENTS}::test_the_one_used_least_recently_gives_up_its_slot",
    ),
    Mutation(
        "serve/residents.py",
        "self._idle.pop(handle, None)",
        "pass",
        f"{RESIDENTS}::test_the_one_used_least_recently_gives_up_its_slot",
    ),
    Mutation(
        "serve/reading_pool.py",
        "reading.joins(first)",
        "reading.wanted is first.wanted",
        "tests/test_reading_pool.py::test_a_call_in_ones_own_thread_shares_no_batch",
    ),
    Mutation(
        "serve/residents.py",
        "handle.read = lambda: adapter",
        "pass",
        f"{RESIDENTS}::test_who_has_lost_their_name_takes_no_room",
    ),
    Mutation(
        "serve/residents.py",
        "self._retire(before)",
        "pass",
        f"{RESIDENTS}::test_one_that_lost_its_name_goes_first",
    ),
    Mutation(
        "serve/residents.py",
        "if digest_of(adapter) != handle.digest:",
        "if False:",
        f"{RESIDENTS}::test_a_directory_that_changes_is_refused_and_not_taken_for_what_it_was",
    ),
    Mutation(
        "serve/handles.py",
        '"recipe": adapter.recipe,',
        "",
        f"{RESIDENTS}::test_a_digest_is_of_what_answers",
    ),
    Mutation(
        "serve/host_memory.py",
        "self._failed.pop(handle, None)\n            self._found",
        "self._found",
        f"{RESIDENTS}::test_what_cannot_be_read_is_told_to_each_who_asks_and_tried_again_for_the_next",
    ),
    Mutation(
        "serve/host_memory.py",
        "self._kept.move_to_end(handle)",
        "pass",
        f"{RESIDENTS}::test_the_host_forgets_what_was_used_least_recently",
    ),
    # -- adapters that are put on a hub
    Mutation(
        "train/queue.py",
        "for name in self.results:",
        "for name in ():",
        f"{RUNS}::test_a_run_that_goes_on_puts_what_finished_before",
    ),
    Mutation(
        "hub/runs.py", "failed.append(folder.name)", "break", f"{RUNS}::test_a_damaged_adapter_holds_up_no_other_of_a_run"
    ),
    Mutation("store/copies.py", "os.utime(copy)", "pass", f"{PRINTED}::test_copies_that_nothing_asks_for_are_deleted"),
    Mutation(
        "store/signing.py",
        'f"graftax hub version {reference} sha256:{digest}"',
        'f"graftax hub version sha256:{digest}"',
        "tests/test_store_signing.py::test_what_was_signed_is_not_taken_under_another_name",
    ),
    # -- adapters that come from elsewhere
    Mutation("hub/oci.py", ' or describe(content, "").digest != descriptor.digest', "", f"{STRANGE}::test_damage_is_found"),
    Mutation("hub/model_pack.py", "FilePath, f", "str, f", f"{STRANGE}::test_archives_reach_nothing_outside"),
    Mutation(
        "hub/model_pack.py",
        "there.keys() | manifest.files",
        "there.keys() & manifest.files",
        f"{STRANGE}::test_a_manifest_is_of_the_files_that_come_with_it",
    ),
    Mutation(
        "hub/exchange.py",
        "not in (None, known.fingerprint)",
        "in ()",
        f"{STRANGE}::test_a_manifest_does_not_claim_another_backbone",
    ),
    Mutation(
        "hub/exchange.py",
        "fingerprint=backbone.fingerprint",
        "fingerprint=manifest.fingerprint",
        f"{EXCHANGE}::test_what_comes_from_peft_fits_what_it_was_loaded_for",
    ),
    Mutation(
        "store/manifest.py", "if self.imported_from is None:", "if False:", f"{EXCHANGE}::test_where_it_was_found_is_kept"
    ),
    Mutation(
        "hub/oci_layout.py",
        "with disk.in_turn(path):",
        "with disk.writing(path):",
        f"{EXCHANGE}::test_exports_into_one_layout_at_once",
    ),
    Mutation(
        "hub/oci_registry.py",
        "add_unredirected_header",
        "add_header",
        f"{ELSEWHERE}::test_a_password_is_for_the_registry_alone",
    ),
    Mutation(
        "hub/oci_registry.py",
        "challenge != self._challenge",
        "self._permission is None",
        f"{ELSEWHERE}::test_a_registry_gives_back_the_same_version",
    ),
    Mutation(
        "hub/hugging_face.py",
        "path in OF_ADAPTERS and path not in files",
        "path not in files",
        f"{ELSEWHERE}::test_a_repository_is_brought_up_to_date",
    ),
    # -- what a hub says of adapters
    Mutation("hub/kept.py", "if not is_own(name, value, wrote):", "if name not in own:", CARDS),
    Mutation("hub/kept.py", "name not in there and name not in wrote", "name not in there", CARDS),
    Mutation("hub/sections.py", "1 + max(map(len,", "max(map(len,", CARDS),
    Mutation("hub/front_matter.py", "self.values[key] == value", "True", CARDS),
    Mutation("hub/leaderboard.py", "others_low > high", "others_low >= high", LEADERS),
    Mutation("hub/leaderboard.py", "sorted((sign * low, sign * high))", "(sign * low, sign * high)", LEADERS),
    Mutation("hub/leaderboard.py", "score.version.yanked is None", "True", LEADERS),
    Mutation("hub/leaderboard.py", "-1.0 if lower_is_better else 1.0", "1.0", LEADERS),
    Mutation("serve/intervals.py", "and not task_named(task).output.by_position", "", LEADERS),
    Mutation("serve/intervals.py", "_Z**2 / (4 * rows**2)", "0.0", LEADERS),
    Mutation("hub/answers.py", "(left & ~right).sum()", "(left | ~right).sum()", DIFFERENCES),
    Mutation("hub/changes.py", '(state["scale"], *', "(np.float32(1.0), *", DIFFERENCES),
    Mutation("hub/diff.py", "left + right - 2 * product", "left + right - product", DIFFERENCES),
    # -- a store
    Mutation("store/blobs.py", '(f".{times}" if times else "")', '""', f"{STORE}::test_collected_while_it_is_pushed_again"),
    Mutation("store/store.py", "blob.digest not in live and blob", "blob", f"{STORE}::test_a_clock_that_is_wrong"),
    Mutation("store/applying.py", "_set_gone(tables, 0, _NOT_OVER, now())", "", f"{STORE}::test_a_clock_that_is_wrong"),
    Mutation(
        "store/applying.py",
        '_set_gone(tables, 1, "gone IN (0, 2) AND',
        '_set_gone(tables, 1, "gone = 1 AND',
        f"{STORE}::test_a_clock_that_is_wrong",
    ),
    Mutation(
        "store/index.py",
        "if hashlib.sha256(text.encode()).hexdigest() == version.digest else None",
        "",
        "tests/test_store_manifests.py::test_an_index_that_has_it_wrong",
    ),
    Mutation("store/ledger.py", "if previous != digest:", "if False:", f"{STORE}::test_an_event_that_follows_another"),
    Mutation(
        "store/snapshots.py",
        "if ledger.digest(number) != digest:",
        "if False:",
        f"{STORE}::test_put_back_with_a_snapshot_of_what_is_no_more",
    ),
    Mutation("store/query.py", "len(word) > 1 or", "", "tests/test_store_search.py"),
    Mutation("store/manifest.py", 'part.endswith((" ", "."))', 'part.endswith(" ")', f"{STORE}::test_a_hostile_path"),
    # -- GGUF files
    Mutation(
        "models/gguf_config.py",
        "reshape(heads, -1, 2)",
        "reshape(heads, 2, -1)",
        f"{GGUF}::test_biases_of_llama_are_in_the_order_of_their_rows",
    ),
    Mutation(
        "models/gguf_config.py",
        '"layers.key": config.kv_heads',
        '"layers.key": config.num_heads',
        f"{GGUF}::test_biases_of_llama_are_in_the_order_of_their_rows",
    ),
    Mutation("models/gguf_config.py", "added=1.0", "added=0.0", f"{GGUF}::test_a_lossless_file_is_the_checkpoint[gemma2]"),
    Mutation(
        "models/gguf_tokenizer.py", '(r"\\p{N}", _GPT2)', "(_GPT2,)", "tests/test_gguf_tokenizer.py::test_how_digits_are_cut"
    ),
    Mutation(
        "models/gguf_tokenizer.py",
        "(-scores[i], i,",
        "(scores[i], i,",
        "tests/test_gguf_tokenizer.py::test_pieces_of_sentencepiece",
    ),
    Mutation(
        "models/gguf_vocabulary.py",
        "ends += [i for",
        "ends = [i for",
        "tests/test_gguf_tokenizer.py::test_chats_and_what_ends_a_text",
    ),
    # -- a server under load, and its hub
    Mutation(
        "serve/loadtest/meanings.py",
        "return said in self._meant[name]",
        "return True",
        "tests/test_loadtest.py::test_another_adapters_answer_is_wrong[digest]",
    ),
    Mutation(
        "serve/loadtest/arrivals.py",
        "** -workload.alpha",
        "** workload.alpha",
        "tests/test_loadtest.py::test_adapters_are_asked_by_a_power_law",
    ),
    Mutation(
        "store/own_index.py",
        "if not self._ledger.exists():",
        "if False:",
        "tests/test_on_hub.py::test_a_folder_that_is_gone_for_a_while_takes_no_name_with_it",
    ),
    Mutation(
        "tuning/tinker/promises.py",
        "promise is None or promise.tenant != tenant",
        "promise is None",
        f"{PROMISED}::test_a_call_that_comes_twice_is_one_promise",
    ),
    Mutation(
        "tuning/tinker/promises.py",
        "(self._fetched, self._settled):",
        "(self._settled, self._fetched):",
        f"{PROMISED}::test_results_take_so_much_room_and_no_more",
    ),
    Mutation(
        "tuning/tinker/promises.py",
        "self._asked[promise.tenant] -= promise.size",
        "pass",
        f"{PROMISED}::test_calls_under_way_hold_so_many_bytes",
    ),
    Mutation(
        "tuning/tinker/call_order.py",
        "elif number < line.next or number in line.early:",
        "elif number in line.early:",
        f"{PROMISED}::test_a_number_that_never_comes_holds_nobody_up_for_ever",
    ),
    Mutation(
        "tuning/tinker/call_order.py",
        "lines = [line for line in lines if type(line.ready[0].asked) is kind]",
        "lines = lines[:1]",
        f"{PROMISED}::test_models_are_done_together_and_each_in_its_order",
    ),
    Mutation(
        "tuning/tinker/wire_data.py",
        'value.text if value.HasField("text") else value.number',
        "settings.get(name, value.number)",
        f"{WIRE}::test_what_the_client_sends_is_read",
    ),
    Mutation(
        "tuning/tinker/asked_methods.py",
        "ALPHA = 32.0",
        "ALPHA = 16.0",
        f"{WIRE}::test_lora_is_tinkers",
    ),
    Mutation(
        "tuning/tinker/sampling_desk.py",
        "tokens[: stop + 1]",
        "tokens[:stop]",
        f"{TINKER}::test_texts_end_where_they_are_to",
    ),
    Mutation(
        "serve/http/keys.py",
        "is Match.FULL for route",
        "is not Match.NONE or scope for route",
        "tests/test_http_further.py",
    ),
    Mutation(
        "tuning/tinker/tickets.py",
        "[1] <= now",
        "[1] < 0",
        f"{PROMISED}::test_a_ticket_is_good_for_an_hour",
    ),
    Mutation(
        "tuning/tinker/packed_bodies.py",
        "if len(unpacked) > limits.max_body:",
        "if not unpacked:",
        f"{TINKER}::test_bodies_that_are_none_or_too_large",
    ),
    Mutation(
        "tuning/tinker/kept_models.py",
        "if kept.tenant == tenant:\n                return kept",
        "if kept is not None:\n                return kept",
        f"{TINKER}::test_tenants_see_their_own",
    ),
    Mutation(
        "tuning/tinker/sessions.py",
        "if session is not None and session.tenant == tenant:",
        "if session is not None:",
        f"{TINKER}::test_tenants_see_their_own",
    ),
    Mutation(
        "serve/http/app.py",
        'scope["path"] not in self._polls  # what',
        'scope["path"] is not None  # what',
        "tests/test_http_further.py",
    ),
    Mutation(
        "tuning/jobs/uploads.py",
        "if not line.strip():",
        "if line is None:",
        f"{UPLOADED}::test_what_is_no_row_is_refused_by_its_line",
    ),
    Mutation(
        "tuning/jobs/uploads.py",
        "(tenant is not None and found.tenant != tenant)",
        "(tenant is None)",
        f"{UPLOADED}::test_nobody_has_anothers_files",
    ),
    Mutation(
        "tuning/jobs/uploads.py",
        "if digest.hexdigest() != known.sha256:",
        "if not rows:",
        f"{UPLOADED}::test_content_that_nobody_knows_is_removed_at_the_next_start",
    ),
    Mutation(
        "tuning/jobs/uploads.py",
        "in (job.request.training_file, job.request.validation_file)",
        "in (job.request.validation_file,)",
        f"{UPLOADED}::test_a_file_that_a_job_needs_is_not_deleted",
    ),
    Mutation(
        "tuning/http/file_endpoints.py",
        "if file.size is not None and file.size > jobs.max_upload:",
        "if file.size is None:",
        f"{UPLOADED}::test_a_larger_file_is_spooled_and_still_the_same",
    ),
    Mutation(
        "tuning/http/result_pages.py",
        "len(objects) > limit}",
        "len(objects) >= limit}",
        f"{UPLOADED}::test_files_are_listed_in_pages",
    ),
    Mutation(
        "tuning/jobs/asked_job.py",
        "recipe.replace(lr=recipe.lr * multiplier)",
        "recipe.replace(lr=multiplier)",
        f"{ASKED_JOBS}::test_a_preference_and_what_auto_means",
    ),
    Mutation(
        "tuning/jobs/asked_job.py",
        "        if own in said:\n",
        "        if own in ():\n",
        f"{ASKED_JOBS}::test_what_cannot_be_meant_is_refused_by_its_name",
    ),
    Mutation(
        "tuning/jobs/asked_job.py",
        "not in (None, *TEMPLATES):",
        "is False:",
        f"{ASKED_JOBS}::test_what_cannot_be_meant_is_refused_by_its_name",
    ),
    Mutation(
        "tuning/jobs/openai_rows.py",
        '"chosen": row[_PREFERRED], "rejected": row[_OTHER]',
        '"chosen": row[_OTHER], "rejected": row[_PREFERRED]',
        f"{ASKED_JOBS}::test_a_preference_is_read_the_right_way_round",
    ),
    Mutation(
        "tuning/jobs/openai_rows.py",
        'if not isinstance(value, str) and not (isinstance(value, Mapping) and value.keys() == {"bytes", "path"}):',
        "if not isinstance(value, str):",
        f"{ASKED_JOBS}::test_rows_of_strangers_name_no_files_of_the_server",
    ),
    Mutation(
        "tuning/jobs/openai_rows.py",
        "if there := [key for key in _TOOLS if row.get(key)]:",
        "if there := [key for key in _TOOLS if row.get(key) == 0]:",
        f"{ASKED_JOBS}::test_a_row_that_does_not_fit_fails_its_job_by_its_line",
    ),
    Mutation(
        "data/chats.py",
        'message.get("weight", 1) == 1',
        'message.get("weight", 1) is not None',
        f"{ASKED_JOBS}::test_an_assistants_message_of_no_weight_is_read_and_not_learnt",
    ),
    Mutation(
        "tuning/http/job_service.py",
        "if job is not None and tenant() in (None, job.tenant) else None",
        "",
        f"{ASKED_JOBS}::test_jobs_are_listed_in_pages_by_tenant_and_metadata",
    ),
    Mutation(
        "serve/http/service.py",
        "return self.owners.get(name, tenant) == tenant",
        "return name in self.owners or tenant is tenant",
        f"{ASKED_JOBS}::test_from_chats_to_the_model_that_the_job_names",
    ),
    Mutation(
        "tuning/jobs/training_quotas.py",
        "self._table.spent(tenant, but)",
        "self._table.spent(tenant)",
        f"{TRAINING_QUOTAS}::test_whoever_trains_is_told_when_it_is_used_up",
    ),
    Mutation(
        "tuning/jobs/training_quotas.py",
        "if quota.training_jobs is not None and under_way >= quota.training_jobs:",
        "if quota.training_jobs is not None and under_way > quota.training_jobs:",
        f"{TRAINING_QUOTAS}::test_so_many_jobs_at_once",
    ),
    Mutation(
        "tuning/jobs/training_quotas.py",
        "if priority > quota.training_priority:",
        "if priority > 100:",
        f"{TRAINING_QUOTAS}::test_a_priority_is_granted",
    ),
    Mutation("tuning/jobs/job_table.py", "return Cost(*of_jobs) + Cost(*of_loops)", "return Cost(*of_jobs)", TRAINING_QUOTAS),
    Mutation("tuning/tinker/accounts.py", "if other == tenant", "if other is None", TRAINING_QUOTAS),
    Mutation(
        "tuning/tinker/accounts.py",
        'exception("what loops have cost was not written")',
        "error(self._costs.clear())",
        FULL_DISK,
    ),
    Mutation("tuning/loops/loops.py", "tokens=0 if call.call.forward_only else sum", "tokens=sum", TRAINING_OF_A_KEY),
    Mutation("tuning/jobs/uploads.py", "had + size > self._most", "had > self._most", IN_ALL),
    Mutation("tuning/jobs/job_trainer.py", "self._publish_again(record,", "self._publish(record,", RESTARTED),
    Mutation("serve/http/prometheus.py", "ADMIN.get() or service.shows(name)", "True", JOBS_MODEL),
    Mutation("tuning/jobs/job_trainer.py", "only_if=_NOT_OVER, **ended", 'only_if=("running",), **ended', f"{TOO_LATE}[pause]"),
    Mutation("tuning/jobs/job_trainer.py", "            self._withdraw(name)\n", "            pass\n", f"{TOO_LATE}[cancel]"),
    Mutation("tuning/jobs/job_trainer.py", "        self._tell_of_given_up()\n        self", "        self", TOLD_LATER),
    Mutation("tuning/jobs/job_trainer.py", "if job not in self._running]", "if job]", ONE_SLOT),
    Mutation("tuning/loops/loops.py", "name, capacity * sum(leaf.nbytes", "name, sum(leaf.nbytes", TOO_LARGE_A_LOOP),
    Mutation("tuning/jobs/job_table.py", "INSERT OR REPLACE INTO files", "INSERT INTO files", RESULTS_ONCE),
    Mutation("tuning/jobs/step_metrics.py", '("valid_loss", "full_valid_loss")', '("full_valid_loss",)', RESULTS_ONCE),
    Mutation("tuning/jobs/estimates.py", "now += least * len(left) / share", "now += least / share", ESTIMATES),
    Mutation(
        "tuning/jobs/estimates.py",
        "key=lambda work: -work.priority",
        "key=lambda work: 0",
        f"{ESTIMATES}::test_a_higher_priority_begins_first",
    ),
    Mutation(
        "tuning/jobs/outlook.py",
        "trainer.progress(job.id) or job.cost",
        "job.cost",
        f"{ESTIMATES}::test_an_outlook_is_by_what_the_jobs_have_cost",
    ),
    Mutation(
        "tuning/device_time.py",
        "if self._trains == threading.get_ident():",
        "if self._trains is not None:",
        "tests/test_device_time.py::test_who_has_no_step_breathes_for_nothing",
    ),
    Mutation(
        "tuning/jobs/running_job.py",
        "if self.steps > self.saved_steps:",
        "if self.steps >= self.saved_steps:",
        "tests/test_job_trainer.py::test_what_is_saved_as_it_is_is_not_saved_again",
    ),
    Mutation(
        "tuning/loops/token_losses.py",
        "jnp.where(drawn <= bounded, -drawn, 0.0)",
        "-drawn",
        "tests/test_loops_torch.py::test_a_loss_and_its_derivative_are_torchs",
    ),
    Mutation(
        "tuning/loops/loop_programs.py",
        "finite = _finite(own) & jnp.isfinite(summed.loss)",
        "finite = jnp.isfinite(summed.loss)",
        f"{LOOPS}::test_what_is_not_finite_touches_nobody_else",
    ),
    Mutation(
        "tuning/loops/loop_programs.py",
        "+ adam.weight_decay * p)",
        "+ adam.weight_decay)",
        "tests/test_loops_torch.py::test_steps_are_pefts_with_torchs_adamw",
    ),
    Mutation(
        "tuning/loops/loop_programs.py",
        "gradient, once = tied(one.gradient, one.rate, self.backbone.structure)",
        "gradient = once = one.gradient",
        f"{LOOPS}::test_what_sites_share_stays_one",
    ),
    Mutation(
        "tuning/loops/loops.py",
        "calls += not call.call.forward_only",
        "calls += 1",
        f"{LOOPS}::test_forward_alone_leaves_the_loop_as_it_is",
    ),
    Mutation(
        "tuning/loops/loops.py",
        "method.adds_tokens or method.whole_text for",
        "method.whole_text for",
        f"{LOOPS}::test_prompts_beside_others",
    ),
    Mutation(
        "tuning/loops/laid_calls.py",
        "if count >= _FILLED * above else",
        "if count else",
        f"{LOOPS}::test_where_data_lie",
    ),
    Mutation(
        "tuning/loops/loop_fit.py",
        "if kind.scheduled:",
        "if kind.adds_tokens:",
        f"{LOOPS}::test_methods_that_cannot_be_trained_so_are_refused",
    ),
    Mutation(
        "models/cross_entropy.py",
        "return chunks, -(-tokens // chunks)",
        "return chunks, max(1, min(tokens, _NUMBERS // (rows * vocabulary)))",
        "tests/test_language.py::test_no_logits_of_all_tokens",
    ),
    Mutation(
        "tuning/jobs/job_record.py",
        "if file is not None and file in said:",
        "if file is not None:",
        f"{ASKED_JOBS}::test_an_error_says_which_file_it_is_about",
    ),
    Mutation(
        "benchmarks/accelerators/hlo_text.py",
        "in_memory and one.opcode in _IN_MEMORY",
        "in_memory",
        f"{COMPILED}::test_what_a_fusion_computes_for_itself_is_not_in_memory",
    ),
    Mutation(
        "benchmarks/accelerators/hlo_text.py",
        "times * (self.trips(one) or 1)",
        "times",
        f"{COMPILED}::test_operations_of_a_known_product_are_counted_in_loops_too",
    ),
    Mutation(
        "benchmarks/accelerators/matrix_products.py",
        "elif of_left[axis] == 1 and of_right[axis] == of_output[axis]:",
        "elif of_left[axis] == 0:",
        f"{COMPILED}::test_products_that_are_written_as_convolutions",
    ),
    Mutation(
        "benchmarks/accelerators/matrix_products.py",
        "for length in (self.m, self.n, self.k)) > 1",
        "for length in (self.m, self.n, self.k)) > 2",
        f"{COMPILED}::test_products_larger_than_a_rank",
    ),
    Mutation(
        "benchmarks/accelerators/buffers.py",
        "sum(shape.nbytes for shape in shapes if not shape.near)",
        "sum(shape.nbytes for shape in shapes)",
        f"{COMPILED}::test_what_is_brought_near_the_cores_is_no_copy",
    ),
    Mutation(
        "benchmarks/accelerators/buffers.py",
        "sliced += sum(shape.nbytes for shape in reader.shapes)",
        "sliced += sum(shape.nbytes for shape in operand.shapes)",
        f"{COMPILED}::test_a_program_is_taken_apart",
    ),
    Mutation(
        "benchmarks/accelerators/roofline.py",
        "return max(self.by_flops, self.by_bytes)",
        "return self.by_flops",
        f"{COMPILED}::test_the_roofline_is_the_larger_of_both_bounds",
    ),
    Mutation(
        "benchmarks/accelerators/step_programs.py",
        "several(self.learner, self.slots)",
        "several(self.learner, 1)",
        "tests/test_weightless_programs.py::test_a_step_on_texts_is_given_what_a_pack_gives_it",
    ),
    Mutation(
        "benchmarks/accelerators/attention_kernels.py",
        '("dq", 3), ("dkv", 4)',
        '("dq", 2), ("dkv", 3)',
        f"{COMPILED}::test_attention_of_a_tpu_is_two_products_there_and_seven_back",
    ),
    Mutation(
        "benchmarks/accelerators/buffers.py",
        "bool(does) and does <= _COPIES",
        "False",
        f"{COMPILED}::test_what_is_brought_near_the_cores_is_no_copy",
    ),
    Mutation("fleet/shard_worker.py", "Begun(digest, [work.width]", "Begun(digest, [min(work.width, len(jobs))]", FLEET_BITS),
    Mutation("fleet/shard_worker.py", "!= order.fingerprint:", "is None:", f"{FLEET}::test_another_backbone_is_refused"),
    Mutation("fleet/fleet_run.py", "in history[told.lines :]", "in history", FLEET_BITS),
    Mutation(
        "fleet/fleet_run.py",
        "if message.with_node:",
        "if False:",
        f"{FLEET}::test_machines_may_be_taken_away_any_number_of_times",
    ),
    Mutation(
        "fleet/fleet_run.py",
        "shard.deaths >= _MOST",
        "shard.deaths >= _SPLIT",
        f"{FLEET}::test_a_shard_that_kills_its_workers_is_given_up",
    ),
    Mutation(
        "fleet/fleet_run.py",
        "finished = frozenset(name for name in shard.names() if name not in self.told)",
        "finished = frozenset()",
        f"{FLEET}::test_a_worker_is_lost",
    ),
    Mutation("fleet/shards.py", "len(shards[-1]) >= width and", "", f"{FLEET}::test_shards_hold_every_job_once"),
    Mutation("train/begun.py", "if self.by_fleet != by_fleet:", "if False:", f"{FLEET}::test_the_driver_is_killed_and_goes_on"),
    Mutation(
        "serve/http/replicas/front.py",
        '"" if name == base else name',
        "name",
        "tests/test_replicas.py::test_the_model_of_a_request_says_where_it_goes",
    ),
    Mutation(
        "serve/http/replicas/front.py",
        "_TRIES = 3",
        "_TRIES = 2",
        "tests/test_replicas.py::test_a_replica_that_is_gone_is_not_missed",
    ),
    Mutation(
        "serve/http/replicas/whole_request.py",
        "        gone.set()\n",
        "        running.cancel()\n",
        "tests/test_replicas.py::test_who_stops_reading_has_gone_away",
    ),
    Mutation(
        "models/quantised.py",
        "summed = jnp.float32 if x.dtype == jnp.float16 else None",
        "summed = None",
        "tests/test_quantised.py::test_sums_of_whole_numbers_do_not_overflow_half_floats",
    ),
    Mutation(
        "models/quantised.py",
        "zip(left[::2], left[1::2], strict=True)",
        "zip(left[: len(left) // 2], left[len(left) // 2 :], strict=True)",
        "tests/test_quantised.py::test_a_product_is_that_of_the_floats",
    ),
    Mutation(
        "benchmarks/scale/step_time.py",
        "max(by_flops, by_bytes) + cost.kernels * assumptions.launch",
        "max(by_flops, by_bytes)",
        f"{SCALE}::test_a_program_takes_what_is_slower_and_its_launches",
    ),
    Mutation(
        "benchmarks/scale/compiled_costs.py",
        "sum(step.times for step in steps",
        "sum(1 for step in steps",
        f"{SCALE}::test_kernels_are_what_is_launched",
    ),
    Mutation(
        "benchmarks/scale/simulated_fleet.py",
        "steps=part.steps - remembered",
        "steps=part.steps",
        f"{SCALE}::test_work_and_time_are_conserved",
    ),
    Mutation(
        "benchmarks/scale/simulated_fleet.py",
        "return training, turns * every, seconds - training",
        "return training, training, seconds - training",
        f"{SCALE}::test_lost_work_is_what_the_formula_says",
    ),
    Mutation(
        "benchmarks/scale/simulated_fleet.py",
        "ends = max(free, moment) + delivery.write",
        "ends = moment + delivery.write",
        f"{SCALE}::test_one_writer_is_a_queue_and_so_is_the_ledger",
    ),
    Mutation(
        "benchmarks/scale/adapter_queue.py",
        "total + own > seconds",
        "total > seconds",
        f"{SCALE}::test_shards_are_cut_by_work",
    ),
    Mutation(
        "benchmarks/scale/simulated_replicas.py",
        "replica.version != version",
        "False",
        f"{SCALE}::test_texts_share_a_replica",
    ),
    Mutation(
        "benchmarks/scale/simulated_replicas.py",
        "for one, users in self.bank.items() if not users",
        "for one, users in self.bank.items()",
        f"{SCALE}::test_what_is_in_use_keeps_its_slot",
    ),
    Mutation(
        "benchmarks/scale/tenant_routing.py",
        "if under_way[replica] < share",
        "if True",
        f"{SCALE}::test_a_busy_home_is_left_at_its_bound",
    ),
    Mutation(
        "benchmarks/scale/tenant_routing.py",
        "if under_way[replica] < self.room",
        "if under_way[replica] >= 0",
        f"{SCALE}::test_a_request_goes_where_the_adapter_is_until_it_is_full",
    ),
    Mutation(
        "benchmarks/scale/measuring.py",
        "statistics.median(map(beside, cold)) - call",
        "statistics.median(map(beside, cold))",
        f"{SCALE}::test_constants_are_found_again",
    ),
    Mutation(
        "deploy/train-on-many-hosts.yaml",
        "values: [2, 130, 143]",
        "values: [2, 143]",
        "tests/test_deploy.py::test_exit_codes_are_told_apart",
    ),
    Mutation(
        "deploy/train-on-ray.yaml",
        'num-cpus: "0"',
        'num-cpus: "4"',
        "tests/test_deploy.py::test_ray_reads_of_the_cluster_what_is_meant",
    ),
]
