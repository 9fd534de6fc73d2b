# Any package that DifferentiationInterface knows, for the plain method.
module UDLBridgeDifferentiationInterfaceExt

using DifferentiationInterface: DifferentiationInterface, AbstractADType
using UDLBridge: UDLBridge

UDLBridge.jacobian_by(adtype::AbstractADType, f, θ) = DifferentiationInterface.jacobian(f, adtype, θ)

end
