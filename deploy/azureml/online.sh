#!/bin/sh
# Create the online endpoint, send a prompt, and print the answer. notebooks/azure_online_endpoint.ipynb does the same.
set -eu
cd "$(dirname "$0")"
az ml online-endpoint create -f online-endpoint.yml
az ml online-deployment create -f online-deployment.yml --all-traffic
address=$(az ml online-endpoint show -n chaku --query scoring_uri -o tsv)
key=$(az ml online-endpoint get-credentials -n chaku --query primaryKey -o tsv)
chaku score sample "Once upon a time," --url "$address" --api-key "$key"
