# node-gyp's entry: delegates to CMakeLists.txt, the one definition of the build. Not in the npm package.
{
  "targets": [
    {
      "target_name": "bitloom",
      "type": "none",
      "actions": [
        {
          "action_name": "cmake",
          "inputs": ["<(module_root_dir)/CMakeLists.txt"],
          "outputs": ["<(PRODUCT_DIR)/bitloom.node.always"],
          "action": [
            "node", "<(module_root_dir)/native/gyp-cmake.cjs",
            "<(module_root_dir)", "<(PRODUCT_DIR)", "<(target_arch)", "<(CONFIGURATION_NAME)"
          ]
        }
      ]
    }
  ]
}
