#Requires -RunAsAdministrator
<#
.SYNOPSIS
    Installs, upgrades or removes the kubelet as a service that begins with the machine. Pods go on while it is upgraded.
.EXAMPLE
    .\install-kubelet.ps1 -Program .\kubelet.exe -Server http://10.0.0.1:7443
.EXAMPLE
    .\install-kubelet.ps1 -Uninstall
#>
param(
    [string] $Program = ".\kubelet.exe",
    [string] $Server = "http://127.0.0.1:7443",
    [switch] $Uninstall
)
$ErrorActionPreference = "Stop"
$service = "bluebird-kubelet"
$folder = Join-Path $env:ProgramFiles "BlueBird"
$installed = Join-Path $folder "kubelet.exe"
$root = Join-Path $env:ProgramData "BlueBird\node"

function Invoke-ServiceControl {
    & sc.exe @args | Out-Null
    if ($LASTEXITCODE -ne 0) { throw "sc.exe $args returned $LASTEXITCODE" }
}

$exists = [bool](Get-Service -Name $service -ErrorAction SilentlyContinue)
if ($Uninstall) {
    if ($exists) {
        Stop-Service -Name $service
        Invoke-ServiceControl delete $service
    }
    Write-Output "The service is gone. What is left: $folder, $root, and the pods that run."
    return
}

# What can't be read or doesn't fit stops no kubelet.
$Program = (Resolve-Path -LiteralPath $Program).ProviderPath
# The kubelet makes its root folder itself: nobody else may look into it.
New-Item -ItemType Directory -Force -Path $folder | Out-Null
Copy-Item -LiteralPath $Program -Destination "$installed.new" -Force

if ($exists -and $PSBoundParameters.ContainsKey("Server")) {
    # Nothing else of its command line: settings are there.
    $current = Get-CimInstance Win32_Service -Filter "Name='$service'"
    $kept = $current.PathName -replace ' --server[ =]+("[^"]*"|\S+)', ''
    $changed = $current | Invoke-CimMethod -MethodName Change -Arguments @{ PathName = "$kept --server `"$Server`"" }
    if ($changed.ReturnValue -ne 0) { throw "the command line of $service can't be changed: Win32_Service.Change returned $($changed.ReturnValue)" }
}
if ($exists) { Stop-Service -Name $service }
if (Test-Path $installed) {
    # A program that runs can't be overwritten, but renamed: the shims of the pods go on with it.
    Move-Item $installed ($installed + "." + (Get-Date -Format "yyyyMMddHHmmss") + ".old")
}
Move-Item "$installed.new" $installed
# Those that nothing runs any more.
Get-ChildItem $folder -Filter "kubelet.exe.*.old" | Remove-Item -ErrorAction SilentlyContinue

if (-not $exists) {
    $command = "`"$installed`" --server `"$Server`" --root-dir `"$root`""
    New-Service -Name $service -BinaryPathName $command -DisplayName "BlueBird kubelet" -Description "Runs this machine's pods." -StartupType Automatic | Out-Null
}
# It is started again a second after it has failed, also when it says so itself, for as long as it takes.
Invoke-ServiceControl failure $service reset= 60 actions= restart/1000/restart/1000/restart/1000
Invoke-ServiceControl failureflag $service 1
Start-Service -Name $service
Write-Output "The kubelet runs, and is started with the machine. Its root folder is $root; its log is kubelet.log there."
