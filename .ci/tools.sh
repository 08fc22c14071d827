# Sourced by .ci/run and tests/clients/run.sh: tools from the package registries, in a folder outside the tree that can be kept between runs.

cache=${XDG_CACHE_HOME:-$HOME/.cache}/bluebird-ci

# Puts buf (lint, breaking changes, `buf curl`) in PATH.
use_buf() {
    local folder=$cache/buf-1.75
    [ -x "$folder/node_modules/.bin/buf" ] || npm install --silent --no-audit --no-fund --prefix "$folder" "@bufbuild/buf@~1.75.0"
    PATH=$folder/node_modules/.bin:$PATH
}

# Makes a Python environment of the given name with the given packages, and prints the path of its interpreter.
python_with() {
    local folder=$cache/python-$1 packages=("${@:2}")
    if [ "$(cat "$folder/packages" 2>/dev/null)" != "${packages[*]}" ]; then
        rm -rf "$folder"
        python3 -m venv "$folder" >&2
        "$folder/bin/python" -m pip install --quiet --disable-pip-version-check "${packages[@]}" >&2
        echo "${packages[*]}" > "$folder/packages"
    fi
    echo "$folder/bin/python"
}
