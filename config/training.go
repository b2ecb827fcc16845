package config

import "strings"

// withoutEffect are the keys of LlamaFactory's files that are about training, data and evaluation: a file that trained a model
// may serve it as it is. They are told once in the log. Their values are checked for the kind only.
//
// Source: the dataclasses of github.com/hiyouga/LlamaFactory (src/llamafactory/hparams, at v0.9.4 and ff6d4d12e, and
// src/llamafactory/v1/config at the latter) and of transformers' Seq2SeqTrainingArguments (4.49 and 5.24), which it inherits.
var withoutEffect = func() map[string]string {
	kinds := map[string]string{}
	for kind, names := range map[string]string{
		"bool": `
			account_for_embedding_in_pipeline_split account_for_loss_in_pipeline_split activation_checkpointing adafactor
			apollo_layerwise apollo_scale_front apply_rope_fusion auto_find_batch_size average_tokens_across_devices
			batch_eval_metrics bf16 bf16_full_eval bias_activation_fusion calculate_per_token_loss compute_accuracy
			cross_entropy_loss_fusion data_shared_file_system dataloader_drop_last dataloader_in_order
			dataloader_persistent_workers dataloader_pin_memory ddp_broadcast_buffers ddp_find_unused_parameters
			ddp_static_graph disable_gradient_checkpointing disable_shuffling disable_tqdm dispatch_batches do_eval
			do_predict do_train enable_activation_checkpointing enable_jit_checkpoint enable_liger_kernel enable_torch_profiler eval_do_concat_batches
			eval_on_each_dataset eval_on_start eval_use_gather_object export_hf_on_finish fp16 fp16_full_eval fp8
			fp8_enable_fsdp_float8_all_gather freeze_language_model freeze_multi_modal_projector freeze_vision_tower
			full_determinism galore_layerwise gradient_checkpointing greater_is_better group_by_length hub_always_push
			hub_private_repo ignore_data_skip ignore_pad_token_for_loss include_effective_tokens_per_second
			include_inputs_for_metrics include_num_input_tokens_seen include_tokens_per_second jit_mode_eval
			kt_use_lora_experts load_best_model_at_end log_on_each_node logging_first_step logging_nan_inf_filter
			mask_history masked_softmax_fusion moe_grouped_gemm neat_packing no_cuda overlap_grad_reduce
			overlap_param_gather overwrite_cache overwrite_output_dir packing pissa_convert pissa_init plot_loss
			ppo_score_norm ppo_whiten_rewards predict_with_generate prediction_loss_only print_param_status
			profiler_profile_memory profiler_record_shapes profiler_with_stack pure_bf16 push_to_hub remove_unused_columns
			restore_callback_states_from_checkpoint save_ckpt_as_hf save_on_each_node save_only_model save_safetensors sequence_parallel
			shift_attn skip_memory_metrics sortish_sampler split_batches streaming tf32 torch_compile tpu_metrics_debug
			train_mm_proj_only train_on_prompt upcast_layernorm upcast_lmhead_output use_adam_mini use_apollo use_asft_loss use_badam use_cpu
			use_dft_loss use_distributed_optimizer use_dora use_eaft_loss use_galore use_hyper_parallel use_ipex
			use_legacy_prediction_loop use_liger_kernel use_llama_pro use_mca use_megatron_bridge use_mps_device use_muon
			use_packed_sequences use_reentrant_gc use_rslora use_swanlab use_unsloth use_unsloth_gc use_v1_kernels
			visual_inputs`,
		"int": `
			_n_gpu apollo_rank apollo_update_interval badam_start_block badam_switch_interval badam_verbose batch_size batching_workers
			buffer_size context_parallel_size cp_size data_seed dataloader_num_workers dataloader_prefetch_factor ddp_bucket_cap_mb
			ddp_timeout dist_timeout dp_size early_stopping_steps eval_accumulation_steps eval_num_beams expert_model_parallel_size
			freeze_trainable_layers fsdp_min_num_params galore_rank galore_update_interval generation_max_length
			generation_num_beams global_batch_size gradient_accumulation_steps hyper_parallel_cp_size kt_lora_expert_intermediate_size
			kt_lora_expert_num local_rank lora_alpha lora_rank max_samples max_steps micro_batch_size mp_replicate_size mp_shard_size n_shot oft_block_size oft_rank
			past_index per_device_eval_batch_size per_device_train_batch_size per_gpu_eval_batch_size
			per_gpu_train_batch_size pipeline_model_parallel_size pissa_iter ppo_buffer_size ppo_epochs
			preprocessing_batch_size preprocessing_num_workers profiler_active_steps profiler_repeat profiler_wait_steps
			profiler_warmup_steps ray_num_workers recompute_num_layers ref_model_quantization_bit
			reward_model_quantization_bit save_total_limit seed tensor_model_parallel_size torch_empty_cache_steps
			tpu_num_cores virtual_pipeline_model_parallel_size warmup_steps`,
		"number": `
			adam_beta1 adam_beta2 adam_epsilon apollo_scale asft_alpha badam_update_ratio dpo_label_smoothing eaft_alpha
			eval_delay eval_steps galore_scale kto_chosen_weight kto_rejected_weight label_smoothing_factor ld_alpha
			learning_rate logging_steps lora_dropout loraplus_lr_embedding loraplus_lr_ratio max_grad_norm module_dropout
			moe_aux_loss_coef neftune_noise_alpha num_train_epochs ppo_target pref_bco_weight pref_beta pref_ftx save_epochs save_steps
			simpo_gamma val_size warmup_ratio weight_decay`,
		"text": `
			additional_target apollo_proj apollo_proj_type apollo_scale_type apollo_target badam_mask_mode badam_mode
			badam_switch_mode batching_strategy cp_mode dataloader_multiprocessing_context dataset dataset_dir ddp_backend download_mode eval_dataset
			eval_strategy evaluation_strategy extra_config fp16_backend fp16_opt_level fp8_backend freeze_extra_modules
			freeze_trainable_modules fsdp_transformer_layer_cls_to_wrap galore_proj_type galore_target
			half_precision_backend hub_model_id hub_revision hub_strategy hub_token hyper_parallel_args image_dir
			interleave_probs kt_cpu_activation kt_expert_checkpoint_path kt_non_expert_weight_path lang length_column_name
			log_level_replica logging_dir logging_strategy lora_target lr_scheduler_type master_addr master_port media_dir
			megatron_pretrained_checkpoint metric_for_best_model mix_strategy mixed_precision moe_token_dispatcher_type
			mp_parameters oft_target optim optim_args output_dir parallelism_config placement_strategy pref_loss
			profile_modules profiler_output_dir project push_to_hub_model_id push_to_hub_organization push_to_hub_token
			ray_run_name ray_scope ray_storage_filesystem ray_storage_path recompute_granularity recompute_method ref_model
			ref_model_adapters resume_from_checkpoint reward_model reward_model_adapters reward_model_type run_name save_dir
			save_strategy swanlab_api_key swanlab_lark_secret swanlab_lark_webhook_url swanlab_logdir swanlab_mode
			swanlab_project swanlab_run_name swanlab_workspace task task_dir tokenized_path torch_compile_backend
			torch_compile_mode torchdynamo trackio_bucket_id trackio_space_id trackio_static_space_id
			train_dataset train_sampling_strategy`,
		"any": `
			accelerator_config activation_checkpointing_kwargs debug deepspeed dist_config fsdp fsdp_config
			gradient_checkpointing_kwargs include_for_metrics label_names liger_kernel_config lr_scheduler_config lr_scheduler_kwargs
			optim_config optim_target_modules ray_init_kwargs report_to resources_per_worker`,
	} {
		for name := range strings.FieldsSeq(names) {
			kinds[name] = kind
		}
	}
	return kinds
}()
