#pragma once
// The flags of ecopipe-train, parsed and checked against one another.

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/command_line.h"
#include "domain/plan.h"
#include "orchestrator/train/trainer.h"
#include "stage_runtime/data/data_options.h"
#include "transport/security/endpoint.h"
#include "transport/security/security.h"
#include "transport/wire/messages.h"

namespace ecopipe {

struct TrainOptions {
    std::string model;
    std::string data;
    std::string out;
    std::string cluster_file;  // "" when not given
    std::string plan_file;
    bool local = false;
    bool single = false;
    bool pin = false;
    Security security;
    std::string server_name;  // whose key the federation server's is, with keys
    std::optional<Endpoint> bind;
    double join_timeout_s = 60;
    double peer_timeout_s = 5;
    int threads = 1;
    std::string schedule = "auto";
    Recomputation recomputation = Recomputation::kStages;
    std::string memory_budgets;   // with --local: the directory of its stages' budget files
    std::set<std::string> given;  // flags that the user gave, which a file may not contradict
    TrainerOptions trainer;
    OptimizerSpec optimizer;
    DataOptions data_options;       // but for the channels, which the model decides
    int num_classes = 0;            // 0: the data set's
    bool balanced_classes = false;  // the data decide trainer.loss.class_weights
    std::vector<std::string> freeze;
    bool frozen_norm_evaluates = false;
    std::string init;
    std::vector<std::string> init_except;
    bool auto_micro_batches = false;  // the planner sets trainer.micro_batches
    int sum_blocks = 1;               // domain/sum_blocks.h; 0: the planner sets it
    bool evaluate_only = false;
    bool measure_links = false;
    bool replicas = true;
    bool resume = false;
    bool quiet = false;
    std::optional<Endpoint> web;  // where the page is served
    std::string log_level;
    std::optional<Endpoint> federated;
    std::string cluster_name;
    double reconnect_timeout_s = 3600;
    std::string report_labels = "exact";
    OrderedJson effective;  // every flag, for run.json
};

}  // namespace ecopipe
