#Requires -RunAsAdministrator
<#
.SYNOPSIS
    Installs, upgrades or removes the kubelet as a scheduled task that begins with the machine.
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
$task = "BlueBird kubelet"
$folder = Join-Path $env:ProgramFiles "BlueBird"
$installed = Join-Path $folder "kubelet.exe"
$root = Join-Path $env:ProgramData "BlueBird\node"

if (Get-ScheduledTask -TaskName $task -ErrorAction SilentlyContinue) {
    Stop-ScheduledTask -TaskName $task
    Unregister-ScheduledTask -TaskName $task -Confirm:$false
}
if ($Uninstall) {
    Write-Output "The task is gone. What is left: $folder, $root, and the pods that run."
    return
}

# The kubelet makes its root folder itself: nobody else may look into it.
New-Item -ItemType Directory -Force -Path $folder | Out-Null
if (Test-Path $installed) {
    # A program that runs can't be overwritten, but renamed: the shims of the pods go on with it.
    Move-Item $installed ($installed + "." + (Get-Date -Format "yyyyMMddHHmmss") + ".old")
}
Copy-Item $Program $installed
# Those that nothing runs any more.
Get-ChildItem $folder -Filter "kubelet.exe.*.old" | Remove-Item -ErrorAction SilentlyContinue

$action = New-ScheduledTaskAction -Execute $installed -Argument "--server `"$Server`" --root-dir `"$root`""
$trigger = New-ScheduledTaskTrigger -AtStartup
$principal = New-ScheduledTaskPrincipal -UserId "SYSTEM" -LogonType ServiceAccount -RunLevel Highest
$settings = New-ScheduledTaskSettingsSet -AllowStartIfOnBatteries -DontStopIfGoingOnBatteries -MultipleInstances IgnoreNew `
    -ExecutionTimeLimit ([TimeSpan]::Zero) -RestartCount 999 -RestartInterval (New-TimeSpan -Minutes 1)
Register-ScheduledTask -TaskName $task -Action $action -Trigger $trigger -Principal $principal -Settings $settings | Out-Null
Start-ScheduledTask -TaskName $task
Write-Output "The kubelet runs, and is started with the machine. Its root folder is $root."
